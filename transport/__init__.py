"""Transport: network connections between broker, agents and clients, and interfaces to clock and randomness.

```
 agent, client ──ask──► Channel ──► Dealer ~~~CURVE~~~ Router ──► broker
                                    Subscriber ◄~~~~~~ Publisher ◄── broker
```

- `ports.py` defines the interfaces: clock, randomness, and the four kinds of sockets. Broker, agent and client are
  given an implementation and never make one, so a simulation runs the same classes on a network of its own.
  `timers.py` implements the clock that counts while the machine sleeps, and reports when the machine's time was set.
- `sockets.py` and `dealer.py` implement the sockets with ZeroMQ and CURVE; `anyiosocket.py` waits for a ZeroMQ socket
  under anyio. `tcpinfo.py` reads the byte counts of a TCP connection from the kernel.
- `reader.py` reads sockets in callbacks of asyncio, and `workthread.py` is the thread of the broker's commits: the only
  files that call asyncio itself.
- `memory.py` implements the sockets as queues, for a broker, agent and client in one process.
- `channel.py` sends a request to one of several brokers until it is answered; agents and clients use the same class.
  `patience.py` decides how long a request waits for a silent broker.
- `endpoints.py` parses endpoints and addresses, IPv6 ones too; `resolver.py` finds the addresses of a broker's name.
- `http.py` serves the pages of a broker or agent for load balancers and scrapers, such as /health and /metrics.
  `metric.py` has the counters, gauges and histograms of such a process, and `exposition.py` writes them for Prometheus.
- `descriptors.py` checks and raises the process's limit of open files.
- `files/` fetches the files of jobs from a broker and writes them to a disk.
- `bell.py` wakes tasks that wait for a change; `backoff.py` repeats failed requests after jittered pauses.

Transport imports `protocol` (what is sent) and `certs` (the keys of a connection); broker, agent and client import it.
"""
