"""Protocol: the messages on the wire and the pure logic around them.

No module here touches a socket, clock, disk, thread or source of randomness: callers pass time and ids in.
"""
