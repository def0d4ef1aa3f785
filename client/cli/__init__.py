"""Command line of a client: `airunner submit`, `monitor`, `list`, `show` and the other commands.

```
 airunner/commandline.py ──► commands · controls · joblist · monitor · export · secrets ──► client/client.py ──► broker
                                │ reads                                 │ shows
                             request · jobfile                          watching · printing · listing ──► console
```

- Commands: `clientcommand.py` (what all of them share), `commands.py` (submit, show), `monitor.py`, `joblist.py`
  (list), `controls.py` (cancel, retry, queues, agents, pause, resume, drain), `export.py`, `artifacts.py`, `caches.py`,
  `secrets.py`.
- Input: `options.py` makes the options of `protocol/fields.py`; `request.py` joins them and the job file; `jobfile.py`
  reads it with `yamldocument.py` and `jsondocument.py`, whose values are those of `written.py`; `notation.py` and
  `instants.py` parse values; `sources.py` knows the option or line that each is from, for errors.
- Output: `watching.py` follows a job; `printing.py`, `stamps.py` and `cast.py` format its events; `status.py` is the
  status line below a job's output; `listing.py`, `columns.py`, `wording.py` and `watchlist.py` format
  lists; `console.py` writes to the terminal, through the filter in `terminal.py`, and to
  the descriptors and `sys.stdout` of `standardstreams.py`.

The command line imports the SDK (`client/`), and the SDK imports nothing of the command line.
"""
