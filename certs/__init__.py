"""Identity: CURVE keys, the allow-list, tokens, sealed boxes, health checks of them, and `airunner certs`.

```
 airunner certs ──► command ──► init · machines · queuekeys · checkup
                                   │
 broker, agent, client ──► curve · allowlist · tokens, tokenkeys, tokensource ──► secretfile ──► ownership, home
```

- Layout: `home.py` names every file of an installation; `secretfile.py` reads and writes them with mode 0600;
  `ownership.py` refuses folders that other users could change.
- Machines: `curve.py` loads key pairs; `allowlist.py` reads which keys may connect; `machines.py` adds, exports,
  imports and revokes machines.
- Tokens: `tokens.py` signs and verifies them; `tokenkeys.py` loads the keys; `tokensource.py` chooses the token to
  present; `principal.py` is the verified sender; `authority.py` is the interface that turns a token into a principal.
- Sealed data: `queuekeys.py` seals secrets for a queue's agents; `sealed.py` seals live events for readers of a job.
- Signed logs: `signing.py` signs an attempt's log for its agent, and finds the keys that verify logs.
- Commands: `command.py` is the command line; `init.py` makes keys; `checkup.py` checks them; `findings.py`: results.

The package imports only `protocol`; transport, broker, agent and client import this package.
"""
