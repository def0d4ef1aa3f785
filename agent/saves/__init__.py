"""Saved workspaces: files that a job keeps for a later one, which `airunner continue` begins in them.

```
 workspace ──► looking ──► storing ──HaveBlobs, PutBlob──► broker ──GetBlob──► restoring ──► workspace of another job
               stamps      only what     └──► KEPT event (manifest)
                           has changed
```

- `manifest.py` is the list of the files of a save (pure): their paths, modes, times, link targets and slices.
- `looking.py` finds the files below a folder with their stamps, by which a change is seen without reading.
- `storing.py` stores those that have changed since the last save, and then the manifest.
- `restoring.py` puts a save into another workspace.
- `step.py` is the step of an attempt: it saves at the end, and while the command runs if the job says so.

A save is whole or not at all: its KEPT event is recorded once everything is stored.
"""
