"""The agent: leases jobs, checks out repositories, runs processes, delivers their events.

```
 leases/ ──job──► attempt/ ──► workspace/, checkout/ ──► launcher/ ──► the job's processes
                     └──────── output/ ◄───────────────bytes───────────────┘
                                  └──► broker
```

- `command.py` is `airunner agent`: it builds the parts; `agent.py` runs them; `plan.py` holds what it was told to do.
- `home.py` locks the agent's folder; `flag.py` is the event that ends blocks: a drain, a lost lease, a cancelled job.
- `leases/` asks for jobs and renews leases; `attempt/` runs one job; `workspace/` makes its folders; `checkout/` puts
  the commit there; `launcher/` starts processes; `output/` redacts, spools and sends what they write.

Each imports only what stands before it here: flag, launcher, workspace, checkout, output, plan, leases, attempt, home,
agent, command.
"""
