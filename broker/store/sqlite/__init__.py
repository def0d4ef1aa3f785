"""The SQLite store: implements `broker.store.contract.Store` in one file. All SQL of the project is in this package.

```
 Ledger ──apply(commands)──► store.py ──► jobs · leases · endings · log · queues · secrets · retention
                                │                          │
                                └── one transaction ───────┴──► idempotency · usage · rows · meter ──► apsw
```

- `store.py` opens the file, applies a batch of commands in one transaction and returns what they did.
- `jobs.py`, `leases.py`, `endings.py`, `log.py`, `queues.py`, `secrets.py` and `retention.py` hold the statements of
  one subject each; `idempotency.py` stores replies by request id, `usage.py` counts what each tenant stores.
- `schema.py` creates the tables; `rows.py` types what SQLite returns; `meter.py` counts the work of a command.
- `damage.py` sets aside jobs whose rows cannot be read; `check.py` verifies a whole file; `copying.py` copies one that
  is in use.

The broker's Ledger calls it through the contract alone; `airunner backup` and `airunner store` open files directly.
"""
