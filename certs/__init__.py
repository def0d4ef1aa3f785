"""Identity: keys, the allow-list, tokens, sealed boxes, health checks of all of them, and `airunner certs`."""
