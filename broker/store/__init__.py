"""The store: the queue, the event logs and everything else that a broker must not lose.

- `contract.py` defines what every store promises; tests/conformance tests it.
- `quotas.py`, `room.py` and `needs.py` hold rules that any store applies: limits of a tenant, free disk, required tags.
- `sqlite/` is the store on SQLite, and the only package with SQL.

The Ledger calls the store. The store imports nothing else of the broker.
"""
