"""HTTP API of the web server, `/v1/…`: what the command line does with a broker, as JSON, for curl and programs.

```
 request ─► Operation ─► query, body (read and checked) ─► Client ─► Form ─► JSON
               │ table: `routes`                                      │ those of `airunner … --json`
               └──────────────────► openapi ◄─────────────────────────┘
```

- `operation` is one row of the table: method, path, parameters, body, answers. Routes and OpenAPI are made from it.
- `parameters` reads query strings, `newjobs` the bodies of submissions; both name the field that does not fit.
- `forms` are the answers, `eventforms` the events; `openapi` describes all of them in JSON Schema.
- `jobs`, `job`, `events`, `log`, `search`, `queues` are the operations.
- `streams` sends what goes on until the job ends; `outputorder` and `byteranges` are what `/log` is made of.

Laws
- One form for one thing: the JSON of the API is that of the command line's `--json`.
- An unknown parameter or field is refused by its name: it is most often misspelt.
- A row of the table is all that describes an operation: what OpenAPI says is what is checked.
"""
