"""Checkout: puts one commit of a repository into the workspace of an attempt, with git.

```
 attempt ──► checkout.py ──► submodules.py ──┐
                 └──► mirrors.py ────────────┴──► git.py ──► launcher (a process)
```

- `checkout.py` clones a repository and checks the commit out; `submodules.py` does the same for its submodules.
- `largefiles.py` replaces the pointers of Git LFS; `remote.py` looks what a remote has before anything is transferred.
- `mirrors.py` stores transferred objects, so that the next checkout of a repository transfers only new ones.
- `git.py` runs git isolated from the machine's configuration, retries network failures, and ends a silent git.
- `fsck.py` says which faults of received objects are ignored, `advice.py` what to do about some of git's errors (pure).
- `peek.py` reads files that a job could have replaced.
- `repository.py` and `revision.py` decide which URLs and which names of commits may be passed to git at all (pure).
- `credentials.py` passes user and password to git through its environment (pure).

`attempt/` checks out for each job. `command.py` builds the mirrors; `agent.py` removes unfinished ones when it starts.
"""
