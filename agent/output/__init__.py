"""Output: the events of an attempt, from the process that writes to the broker that stores.

```
 Supervisor ──► Journal: redaction ──► outputbound ──► batching ──► Spool (disk) ──► Publisher ──► broker
                                                                    ▲───────acknowledged──────────┘
```

- `journal.py` is the log of one attempt and joins the steps; `publisher.py` sends the batches of all attempts.
- `redaction.py` and `redactor.py` remove secrets before anything reaches the disk (pure).
- `outputbound.py` keeps the head and the tail of a log that is too long (pure).
- `batching.py` decides when output is sent, and in which pieces.
- `spool.py` is the file of one attempt; `spoolroom.py` limits all of them together; `holes.py` frees what was sent.
- `recovery.py` delivers the spools that a killed agent left, and gives its jobs back.

`attempt/` writes to it; `agent.py` runs the Publisher and, once at the start, recovery.
"""
