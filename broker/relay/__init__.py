"""Relay of live events: a child process of the broker, so that subscribers who exhaust it do not harm the broker."""
