"""Attempts: one run of one job, from its lease to its result.

```
 Slot ──► Attempt ──► hooks, checkout ──► Supervisor ──► launcher
   │         └──────────── Recorder ◄─── output, heartbeats
   └──► Settlement: completed, released, lost or left behind
```

- `slot.py` leases a job, runs an attempt at it, reports its result to the broker, and leases the next.
- `attempt.py` runs the steps in order: checkout, command, and the hooks around both.
- `supervisor.py` waits for one process and passes its output to the recorder; `heartbeat.py` adds an event while it is
  silent.
- `hooks.py` runs the operator's own programs around a job.
- `jobsecrets.py` finds the values of the secrets that a job names, and gives them to it.

`agent.py` starts the slots. The package imports checkout, workspace, output, leases and launcher; they never import it.
"""
