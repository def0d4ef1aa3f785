"""Workspaces: the folders, the user and the environment that an attempt runs with.

- `workspace.py` makes the private folders of one attempt, and removes them, whatever the job did to them.
- `shortpaths.py` makes short paths for HOME and TMPDIR.
- `workspaces.py` reuses untouched workspaces for later attempts, which is faster than making new ones.
- `jobuser.py` assigns the user as which a job runs (`airunner agent --run-as`).
- `environment.py` builds the environment variables of jobs and hooks (pure).

The slots make and remove workspaces; `checkout/` and `attempt/` work in them.
"""
