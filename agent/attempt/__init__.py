"""Attempts: each is one run of one job, from the lease to the result.

```
 Slot ──► Attempt ──► hooks, checkout ──► Supervisor ──► launcher
   │         └──────────── Recorder ◄─── output, heartbeats
   └──► Settlement: completed, released, lost or left behind
```

- `slot.py` leases a job, runs an attempt at it, reports its result to the broker, and leases the next.
- `attempt.py` runs the steps in order: checkout, command, the hooks around both, artifacts.
- `supervisor.py` waits for one process and passes its output to the recorder; `heartbeat.py` records an event while
  the process writes nothing.
- `hooks.py` runs the operator's own programs around a job; `hookvariables.py` reads the variables that they set.
- `surroundings.py` has what all attempts share; `jobsecrets.py` finds the values of the secrets that a job names.

`agent.py` starts the slots. The package imports checkout, workspace, output, artifacts, leases and launcher; none of
them imports it.
"""
