"""HTTP API, `/v1/…`: its JSON is that of the command line's `--json`."""
