"""Identity: CURVE keys, the allow-list, tokens, sealed boxes, health checks of them, and `airunner certs`.

```
 airunner certs ──► command ──► init · machines · queuekeys · checkup
                                   │
 broker, agent, client ──► curve · allowlist · tokens, tokenkeys, tokensource ──► secretfile ──► ownership, home
```

- Layout: `home.py` names every file of an installation; `secretfile.py` reads and writes them with mode 0600;
  `ownership.py` refuses folders that other users could change.
- Machines: `curve.py` loads key pairs; `allowlist.py` says which keys may connect; `machines.py` adds, exports, imports
  and revokes machines.
- Tokens: `tokens.py` signs and verifies; `tokenkeys.py` loads the keys for it; `tokensource.py` chooses the token to
  present; `principal.py` is the verified sender; `authority.py` is the interface for requests, also without tokens.
- Sealed data: `queuekeys.py` seals secrets for a queue's agents, `sealed.py` live events for readers of a job.
- Commands: `command.py` is the command line; `init.py` makes keys; `checkup.py` checks them, with `findings.py`.

It imports `protocol` only, and everything but `protocol` imports it.
"""
