"""Output: the events of an attempt, from the process that writes to the broker that stores.

```
 Attempt ──► Recorder: redaction ──► outputbound ──► batching ──► Outbox: spool (disk) ──► EventPublisher ──► broker
                                                                    ▲──────────acknowledged──────────┘
```

- `recorder.py` takes in the events of one attempt and joins the first steps; `outbox.py` keeps its batches until the
  broker has them; `publisher.py` sends what is in the outboxes of all attempts.
- `redaction.py` and `redactor.py` remove secrets before anything reaches the disk (pure).
- `outputbound.py` keeps the head and the tail of a log that is too long (pure).
- `batching.py` decides when output is sent, and in which pieces.
- `spool.py` is the file of one attempt; `spoolroom.py` limits all of them together; `holes.py` frees what was sent.
- `recovery.py` delivers the spools that a killed agent left, and gives its jobs back.

`attempt/` writes to it; `agent.py` runs the Publisher and, once at the start, recovery.
"""
