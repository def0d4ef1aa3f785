"""Protocol: the messages on the wire and the pure logic around them.

No module here touches a socket, clock, disk, thread or source of randomness: callers pass time and ids in. Protocol
imports nothing else of airunner, and every other package imports protocol.

- On the wire: `frames.py` (envelopes), `bounds.py` and `coding.py` (MessagePack), `requests.py` and
  `replies.py`, `revisions.py` (older requests), `errors.py`, `names.py` (types and bounds of ids and names).
- A job: `fields.py` (the table of its fields), `form.py` (how people write them), `jobfields.py`, `job.py`,
  `states.py` (the table of its states), `jobretry.py`, `events.py` (its log), `compression.py` (of the log's batches).
- State machines: `reconnect.py` (the Lazy Pirate), `follow.py` (a monitor's position in a log), `requestsize.py`.
- Refusals: `misfits.py` words which field of a message does not fit.
- Text: `durations.py`, `envfile.py`, `gitaddress.py`, `redaction.py`, `printable.py`, `listhint.py`.
"""
