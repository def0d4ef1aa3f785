"""Store: the queue, the event logs and everything else that a broker must not lose.

- `contract.py` defines the engine port; tests/conformance tests it.
- `batch.py` loads the rows of a batch, has its commands decided and saves their changes.
- `quotas.py`, `room.py` and `needs.py` hold rules that any store applies: limits of a tenant, free disk, required tags.
- `sqlite/` is the store on SQLite, and the only package with SQL.

The Ledger calls the store. The store imports nothing else of the broker.
"""
