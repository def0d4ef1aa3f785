"""The agent: leases jobs, checks out repositories, runs commands, delivers output and results to the broker.

```
 leases/ ──job──► attempt/ ──► workspace/, checkout/ ──► launcher/ ──► the job's processes
                     ├──────── output/ ◄───────────────bytes───────────────┘
                     │            └──► broker
                     └──────── artifacts/ ──► broker
```

- `command.py` is `airunner agent`: it builds the parts; `running.py` is its process, and `agent.py` runs the parts;
  `plan.py` checks and holds the options.
- `home.py` locks the agent's folder; `flag.py` is an event that cancels blocks of code: a drain, a lost lease;
  `reports.py` writes lines for the operator.
- `leases/` asks for jobs and renews leases; `attempt/` runs one job; `workspace/` makes the job's folders; `checkout/`
  puts the commit there; `launcher/` starts processes; `output/` redacts, spools and sends the processes' output;
  `artifacts/` stores the files that the job leaves, `returning/` what it changed in its checkout, and `saves/` its
  workspace for a later job.

Imports go one way; each of these imports only earlier ones: flag, launcher, workspace, checkout, output, artifacts,
returning, saves, plan, leases, attempt, home, agent, running, command.
"""
