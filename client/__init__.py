"""Python SDK, `airunner.Client`. The command line in `cli/` imports the SDK, and the SDK imports nothing of `cli/`."""
