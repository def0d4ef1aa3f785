"""Launcher: starts jobs' processes from outside the agent, and leaves nothing of them behind.

Why another process: libzmq's threads make forking the agent unsafe, and an agent killed with SIGKILL
cannot clean up after itself.

```
 agent ──line (SEQPACKET)──► launcher            asks for a keeper: one packet, one end of a socketpair
   │                           │ fork
   └──socketpair (stream)────► keeper ──posix_spawn, or ptyprocess──► command ─► whatever it starts
```

- The **launcher** (`child/launcher.py`) is a fresh interpreter without threads, ZeroMQ or anyio. It forks keepers
  and, when a keeper is killed, ends what that one kept.
- A **keeper** (`child/keeper.py`) runs one job at a time: it starts the command (`spawning.py`, `terminal.py`),
  reports its end, ends its tree. It is a child-subreaper, so a daemon that forks twice or calls setsid
  becomes the keeper's child and cannot leave. Hence the law everything rests on: *a keeper without children is a
  keeper whose job has left nothing behind*, which one `waitpid` shows.
- The agent's half (`local.py`, `process.py`, `streams.py`, `line.py`) is anyio only. It speaks with each
  keeper directly, and uses a keeper again once nothing of its job is left.

Who dies or cannot act, and what follows
- A stopped agent: at the deadline of its lease, which the keeper knows, the keeper SIGKILLs all of the job. The
  agent, when it wakes, hears `LeaseEnded`.
- The agent: every socket closes. Keepers and launcher SIGKILL all of their descendants and exit.
- The launcher: its keepers are signalled by the kernel (PR_SET_PDEATHSIG), kill and exit.
- A keeper: its job's processes become the children of the launcher, which kills them. It wakes a stopped keeper.
- Launcher and keeper at once: the agent finds what is left by its mark (`mark.py`) or control group, and kills it.
- All three at once: the next agent of the home does, before it gives anything back.
- A stopped keeper whose launcher is stopped or dead too: it is woken by `end` and `launch`, and killed with its job
  where it does not answer (`watchdog.py`). When a launcher dies its keepers have two seconds to end jobs (`watch`).
- For all but the first two the agent's `wait`, `end` and `launch` raise `LauncherDied`, when nothing of the job runs
  any more; its next launch starts another launcher.
Launcher and keepers have sessions of their own: a signal to the agent's group does not reach them.

What it costs, measured idle on two cores (medians): a launch by a keeper that is there 0.3 ms, in a terminal
1.7 ms; by one that must be forked first 2.7 ms; a whole /bin/true from launch to end 0.84 ms, where a bare
posix_spawn and waitpid take 0.52 ms; ending a job that left a daemon 1.5 ms among 90 processes.

What the job gets: its own session, /dev/null or a terminal as stdin, default signal dispositions, an empty
signal mask, umask 022, no descriptor but 0, 1 and 2.
"""
