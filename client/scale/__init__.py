"""Scaler of agents: starts agents on Kubernetes or Slurm while jobs wait that no agent of its own is free to run.

```
 broker ── ready jobs, agents ──►┐                  ┌──► Kubernetes: a Job for each agent
                                 ├─ demand ─ Scaler ┤
 cluster ── its agents, by name ►┘                  └──► Slurm: a batch job for each agent
```

- `demand.py` decides how many agents are missing, and which names they get. It is pure.
- `cluster.py` is the port to a cluster; `kubernetes/` and `slurm.py` implement it.
- `scaler.py` reads, decides and starts, again and again; it never stops an agent: agents end by themselves
  (`--disconnect-after-job`, `--disconnect-after-idle`).

The agents of a scaler are named NAME-0 to NAME-(N-1), and the cluster has at most one of each name: so there are never
more than N, whenever a scaler is killed, and however many run. A scaler keeps no state that matters: what exists is
read from the cluster.
"""
