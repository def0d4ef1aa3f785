"""Leases: gets leases of jobs from the broker, renews them, and ends attempts whose lease is lost.

```
 slots ──ask──► Leaser ──DequeueJob──► broker          requests jobs for all slots
                  ▲ waits while there is trouble
                Health ◄── probes                      can this machine run jobs at present?
                  │ reported with each heartbeat
 HeldLease ◄───── Renewer ──UpdateJob──► broker           one heartbeat for all leases
```

- `leaser.py` asks the broker for jobs for all slots of the agent.
- `renewer.py` renews all leases with one request, ends attempts whose lease is lost, and learns of cancelled jobs.
- `heldlease.py` is one lease with its deadlines, and whether it is lost or its job cancelled.
- `health.py` stops leasing while this machine cannot run jobs; `probes.py` tests whether it can again.
- `occupancy.py` counts busy slots, for agents that end when idle.

The slots (`attempt/slot.py`) call Leaser, Health and Renewer; `agent.py` runs Health and Renewer beside the slots.
"""
