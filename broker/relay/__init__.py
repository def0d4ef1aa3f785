"""Relay of live events: a process of the broker's own, which subscribers can exhaust without harm to the broker."""
