"""Leases jobs, checks out repositories, runs processes, spools events."""
