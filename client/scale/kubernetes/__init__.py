"""Kubernetes as a cluster: a Job for each agent, made from a template.

- `access.py` finds the API server and what authenticates to it, and `api.py` speaks to it about Jobs.
- `template.py` reads and checks the template; `jobs.py` is the cluster that the scaler uses.

A Job's name is unique in its namespace: of two scalers that create NAME-3 at once, or one that was killed and one that
follows it, the API server lets one succeed, and answers the other that it exists already.
"""
