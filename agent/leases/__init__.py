"""Leases: which jobs this agent holds, and for how long.

```
 slots ──ask──► Leaser ──DequeueJob──► broker          one request for all free slots
                  ▲ waits while unwell
                Health ◄── probes                      can this machine run jobs at present?
                  │ reported with each heartbeat
 HeldLease ◄───── Renewer ──UpdateJob──► broker           one heartbeat for all leases
```

- `leaser.py` asks the broker for jobs for all slots of the agent.
- `renewer.py` renews all leases with one request, ends attempts whose lease is lost, and hears of cancelled jobs.
- `heldlease.py` is one lease as the agent holds it: its deadlines, and whether it is lost or its job cancelled.
- `health.py` stops leasing while the machine refuses to run jobs; `probes.py` tries whether it still does.
- `occupancy.py` counts busy slots, for agents that end when idle.

The slots (`attempt/slot.py`) call Leaser and Renewer; `agent.py` runs both beside the slots.
"""
