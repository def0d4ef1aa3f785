"""What crosses the wire. Pure: no socket, clock, disk, thread or randomness."""
