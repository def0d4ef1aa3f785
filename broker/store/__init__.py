"""Store: the queue, the event logs and everything else that a broker must not lose.

- `contract.py` defines the engine port, which a database has to implement; tests/conformance tests it.
- `batch.py` loads the rows of a batch, calls the deciders of its commands, and saves the changes.
- `quotas.py`, `room.py` and `needs.py` contain rules for any store: limits of a tenant, free disk, required tags.
- `sqlite/` is the engine on SQLite, and the only package with SQL.

The Ledger calls the store. The store imports no actor of the broker.
"""
