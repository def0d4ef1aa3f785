"""Return of changes: what a job has changed in its checkout becomes a commit, which the broker keeps as a Git bundle.

```
 checkout ──git add──► side index, side objects ──► commit, child of the one that was checked out
                        (a copy)  (a folder)           └──► bundle ──pieces──► broker ◄── RETURNED event
```

- `changes.py` makes the commit and its bundle with git; the job's own index, objects and refs stay as they are.
- `step.py` is the step of an attempt: it has the bundle stored, and records the event.
"""
