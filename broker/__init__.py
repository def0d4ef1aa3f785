"""The actors that own the queue and the event log."""
