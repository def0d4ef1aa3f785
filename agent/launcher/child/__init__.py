"""The launcher's processes: what runs outside the agent, in fresh interpreters without threads, ZeroMQ or anyio.

```
 launcher.py ──fork──► keeper.py ──► spawning.py ──► terminal.py, otheruser.py ──► the job's command
                          └──► tree.py, cgroup.py: finds and ends what the job has started
```

- `launcher.py` is the process that the agent starts: it forks keepers and ends what a killed keeper has left.
- `keeper.py` runs one job at a time: starts its command, reports its end, kills its tree at the deadline.
- `spawning.py` starts a command; `terminal.py` does so in a terminal, `otheruser.py` as another user.
- `tree.py` and `cgroup.py` find, signal and kill the processes of a job; `spending.py` adds up what they used.
- `wire.py` defines the messages between agent and keeper; `wakeup.py` and `linux.py` wrap signals and prctl(2).

Standard library only, but for msgpack (`wire.py`) and ptyprocess (`terminal.py`): each import costs time and memory in
every keeper. Of airunner it imports itself and `transport/timers.py`. The agent's half (`agent/launcher`) imports
`wire`, `tree` and `cgroup` from here, and starts `launcher.py`.
"""
