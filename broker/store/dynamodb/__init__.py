"""DynamoDB engine: one table that several brokers share, and loads, conditional transactions and pages over it.

| module | what it has |
|---|---|
| `schema` | keys of all items, indexes, and the definition of the table |
| `items` | jobs and segments as items, and back |
| `tallies` | tally buckets: counters, modes, records by hour, and the outbox of lifecycle events |
| `table` | calls of the table: pages, retries, transactions and their tokens |
| `opening` | checks of the table, and the broker's row in it |
| `engine` | batches: `loading` reads, `saving` writes one transaction |
| `owned` | due jobs of this broker; renewal, and adoption of a dead broker's jobs |
| `waiting` | waiting jobs, from an index that is late |
| `pages`, `logs` | pages of lists and logs |
| `sweeping` | retention |
"""
