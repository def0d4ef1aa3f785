"""Web server, `airunner web`: a door to the broker for browsers and curl. It is a client, and keeps no jobs.

```
 browser / curl ──HTTP──► uvicorn ► guards ► routes ► login ──► Clients ► Client(token) ──CURVE──► broker
                                    │        │        │
     size, host, origin, headers ◄──┘        │        └──► bearer token, or the cookie that seals one
         /v1/… JSON (`api/`), HTML (`pages/`)◄┘
```

- `command.py` are the commands `airunner web` and `airunner login-link`; `serving.py` listens, and ends on signals.
- `app.py` assembles the application: middleware, and the routes of `api/`, `pages/` and the modules beside them.
- `clients.py` keeps an open `Client` for each token, all with this server's own key.
- `login.py` finds whose request it is; `cookies.py` seals tokens, `loginlinks.py` are links that log in once,
  `sessions.py` ends streams with their session.
- `live.py` and `sending.py` are answers that go on: they end with their session, and are sent as fast as they are read.
- `guards.py` refuses what no route should see; `problems.py` makes an answer of each error.

Laws
- The broker alone decides what a token may do: every request passes the token on, and no answer is kept.
- The only secret state is the key of the cookies, a file: the server may be killed at any time, and no job notices.
- What a job writes, names or is labelled is data: in JSON it is quoted, in HTML it is text.
- Nothing here is imported unless `airunner web` runs: its libraries are the extra `airunner-jobs[web]`.
"""
