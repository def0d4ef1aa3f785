"""Checkout: puts one commit of a repository into the workspace of an attempt, with git.

```
 attempt ──► checkout.py ──► submodules.py ──┐
                 └──► mirrors.py ────────────┴──► git.py ──► launcher (a process)
```

- `checkout.py` clones a repository and checks the commit out; `submodules.py` does the same for its submodules.
- `mirrors.py` keeps what was transferred, so that the next checkout of a repository transfers only what is new.
- `git.py` runs git isolated from the machine's configuration, retries network failures, and limits its silence.
- `repository.py` and `revision.py` decide which URLs and which names of commits are passed to git at all (pure).
- `credentials.py` passes user and password to git through its environment (pure).

`attempt/` calls it for each job. `command.py` builds the mirrors, and `agent.py` removes unfinished ones at the start.
"""
