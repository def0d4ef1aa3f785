"""Life of a job: decides what each command does to jobs, attempts, queues and logs. No SQL, no clock, no randomness.

```
 commands ─► keys ─► Engine.load ─► World ─► decide, command by command ─► World.changes() ─► Engine.save
                                                     └─► Done: a reply for the sender, and news for other actors
```

A decider is a function of the `World` (the loaded rows) and one command. It checks the command, and raises a
`PeerError` to refuse it, before it writes to the World. So a refusal changes nothing, and nothing has to be undone.
A command sees the changes of the commands before it in the batch.
"""
