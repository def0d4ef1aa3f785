"""Launcher's child processes: launcher and keepers run outside the agent, without threads, ZeroMQ or anyio.

```
 launcher.py ──fork──► keeper.py ──► spawning.py ──► terminal.py, otheruser.py ──► the job's command
                          └──► ending.py, tree.py, cgroup.py: find and end the job's processes
```

- `launcher.py` is the process that the agent starts: it forks keepers, and kills the jobs of keepers that died.
- `keeper.py` runs one job at a time: starts the command, reports its exit, and ends the job's process tree.
- `spawning.py` starts a command; `terminal.py` does so in a terminal, `otheruser.py` as another user.
- `terminalinput.py` writes to a terminal what its programs read: end of file.
- `ending.py` decides which processes are asked to end, and names survivors.
- `tree.py` and `cgroup.py` find, signal and kill the processes of a job; `spending.py` sums the resources they used.
- `wire.py` defines the messages between agent and keeper; `wakeup.py` and `linux.py` wrap signals and prctl(2).

Standard library only, except for msgpack (`wire.py`) and ptyprocess (`terminal.py`): each import costs time and memory
in every keeper. From the rest of airunner only `transport/timers.py` is imported. The agent imports `wire`, `tree` and
`cgroup` from here.
"""
