"""Broker on AWS: what its actors do with SQS and EventBridge beside a store on DynamoDB.

The table is the truth. A message of SQS only says *look here*: it may be lost, late or doubled, and changes nothing by
that. So no lease, no delay and no job is in a queue, and none of these actors decides anything.

```
             ┌─ news ─► Tickets ─► queue TABLE-bells ═══► Tickets of any broker ─► its bus, its Ledger
 Ledger ─────┼─ changes ─► Outbox ◄─ engine.outbox        its own last link, or the next one of a chain
             │               └─► EventBridge bus ═══► rules of the operator
             └◄─ EnqueueJob ── Submissions ◄── queue TABLE-submissions ◄═══ EventBridge Scheduler
```

- `tickets`: **bells** say that queues have become ready, **timers** that a delay has ended. A timer is a chain of
  messages, because SQS delays each by 15 minutes at most. The receiver looks, and deletes it. What is lost is
  mended by the beats of the brokers, which show missed batches within a second, and by the owner of each delay, which
  has its instant in memory and in the table. If the owner is dead, the broker that adopts its jobs has it.
- `outbox`: sends lifecycle events (not the console) to an event bus, each at least once, with its sequence. The engine
  keeps those that are not acknowledged, in the transactions that wrote them.
- `submissions`: submits the jobs that schedules send, as clients do. The request id is a hash of the schedule and its
  instant, so what SQS delivers twice is submitted once.
- `ports`: queues and the bus, as the actors see them; `services`: the same with boto3, whose calls run in threads, one
  for each line; `opening`: checks at the start that what the URL names exists; `actors`: makes all of this.

Without queues (`sqs=none`) and without a bus nothing is missing but what they are for: hints between brokers then go
only over their own connections, schedules submit nothing, and nobody outside is told of events.
"""
