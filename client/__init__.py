"""Python SDK, `airunner.Client`. The command line in `cli/` is built on it; it imports nothing of `cli/`."""
