"""Job sockets: through one, the processes of a job ask their agent for something, such as to keep a file.

```
 process of the job ──AIRUNNER_JOB_SOCKET──► door ──► table of requests ──► putting ──► artifacts/ ──► broker
                                              │
                                              └► callers: SO_PEERCRED, and is it a process of this job?
```

- `callers.py` decides who may ask: processes of the job, which run as its user or as root.
- `connection.py` reads and writes the frames of one connection (`protocol/jobsocket`).
- `door.py` accepts connections while the command runs, and looks the request up in its table.
- `putting.py` keeps files (`airunner artifact put`).

The agent gives no key and no token to a job, opens no file on its behalf and takes no descriptor from it: it reads what
a process sends, which is what this process may read itself. The socket is made with the workspace
(`workspace/listening`).
"""
