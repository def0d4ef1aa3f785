"""Workspaces: the folders, the user and the environment that an attempt runs with.

- `workspace.py` makes the folders of one attempt, private to it, and removes them whatever the job did to them.
- `workspaces.py` hands untouched workspaces to the next attempt, which is faster than making new ones.
- `jobuser.py` assigns the user that a job runs as (`airunner agent --run-as`).
- `environment.py` builds the environment variables of jobs and hooks (pure).

The slots make and remove workspaces; `checkout/` and `attempt/` work in them.
"""
