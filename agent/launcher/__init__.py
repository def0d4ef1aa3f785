"""Launcher: starts the processes of jobs from outside the agent, and ends all of them.

Why another process: libzmq's threads make forking the agent unsafe, and an agent killed with SIGKILL
cannot clean up after itself.

```
 agent ──SEQPACKET socket──► launcher            one packet for each new keeper, with one end of a socketpair
   │                           │ fork
   └──socketpair (stream)────► keeper ──posix_spawn, or ptyprocess──► command ─► processes that it starts
```

- The **launcher** (`child/launcher.py`) is a fresh interpreter without threads, ZeroMQ or anyio. It forks keepers
  and, when a keeper is killed, kills the processes of that keeper's job.
- A **keeper** (`child/keeper.py`) runs one job at a time: it starts the command (`spawning.py`, `terminal.py`),
  reports its exit, and ends its process tree. It is a child-subreaper, so a daemon that forks twice or calls setsid
  becomes the keeper's child and cannot escape. Everything rests on this rule: *when a keeper has no children, no
  process of its job is left*, which one `waitpid` shows.
- The **agent** (`local.py`, `process.py`, `streams.py`, `connection.py`, with anyio) is connected to each keeper
  directly, and gives a keeper another job when no process of the last job is left.

What happens when a process dies or is stopped
- The agent is stopped: at the deadline of the lease, which the keeper knows, the keeper kills the whole job
  (SIGKILL). When the agent continues, its calls raise `LeaseEnded`.
- The agent dies: its sockets close. Keepers and launcher kill all of their descendants (SIGKILL) and exit.
- The launcher dies: the kernel signals its keepers (PR_SET_PDEATHSIG), which kill their jobs and exit.
- A keeper dies: its job's processes become children of the launcher, which kills them. A keeper is stopped: the
  launcher continues it (SIGCONT).
- Launcher and keeper die at once: the agent finds the job's processes by their mark (`mark.py`) or control group,
  and kills them. All three die at once: the next agent of the home does so, before it releases any job.
- A keeper is stopped, and its launcher is stopped or dead: the agent's `end` and `launch` continue the keeper, and
  kill it and its job if it does not answer (`watchdog.py`), and no other job. If no keeper reports that it is ready,
  the launcher itself does not answer: `launch` kills it, and so all jobs. When a launcher dies, its keepers have two
  seconds to end their jobs (`ChildLauncher.watch`).
- After the death of a launcher or keeper the agent's `wait`, `end` and `launch` raise `LauncherDied`, when the job's
  processes have been killed. The next launch starts another launcher, if there is none.
Launcher and keepers have their own sessions: a signal to the agent's process group does not reach them.

The start of a command is one message of its keeper, and its end another. If the agent has time to wait for the end of a
command that is probably short, both and the output are one (`child/shortoutput.py`, `ended.py`). What a launch costs is
in docs/decisions/0039.

A command starts with its own session, /dev/null, a file or a terminal as stdin, default signal dispositions, an empty
signal mask, umask 022, and no descriptors but 0, 1 and 2.
"""
