"""Output path: an attempt's events on their way from its processes to the broker.

```
 Attempt ──► Recorder: redaction ► characters ► outputlimit ► batching ► Outbox: spool (disk) ► EventPublisher ► broker
                                                                         ▲─────acknowledged─────┘
```

- `recorder.py` receives the events of one attempt, and calls the next four steps; `outbox.py` compresses the batches
  and stores them until the broker has acknowledged them; `publisher.py` sends the batches of all attempts.
- `redaction.py` and `redactor.py` remove secrets before anything reaches the disk (pure): `escapes.py` unquotes
  and decodes output, `patterns.py` makes the patterns of a secret, and `patternindex.py` finds them.
- `characters.py` cuts output between two characters, and holds back the beginning of a character (pure).
- `outputlimit.py` limits the output of an attempt: of longer output it keeps the head and the tail (pure).
- `logsigning.py` chains the events of an attempt as they are encoded, and signs them.
- `batching.py` groups events into batches, and decides when each batch is due.
- `spool.py` is the file of one attempt's batches; `spoolroom.py` limits the disk space of all of these;
  `holes.py` frees the space of acknowledged batches.
- `recovery.py` delivers the spools that the last agent of this home left, and releases its jobs.

`attempt/` records events here; `agent.py` runs the EventPublisher and, once at the start, the recovery.
"""
