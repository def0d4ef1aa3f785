"""Caches of jobs: folders that one job leaves and the next one gets, on this agent and through the broker.

```
                 ┌──────────── shelf: <agent home>/caches ◄───────────┐
 restore: keys ──┤ in place (moved), or a copy                        ├── save: back to the shelf, whole
                 └─ fetching ◄─GetCache, GetBlob─ broker ◄─PutCache─ saving
```

- `keys.py` hashes the files that make the key of a cache.
- `shelf.py` keeps whole versions on this agent's disk; `placing.py` moves their folders into a workspace and back.
- `manifest.py` is the list of a version's files (pure); `scanning.py` makes it of folders; `writing.py` makes files.
- `fetching.py` and `saving.py` pass versions between the shelf and the broker.
- `step.py` is the step of an attempt: restores its caches before the command, and saves them after it.

A cache never fails a job: what goes wrong with it is a line in the job's log.
"""
