"""The application and its broker run on virtual time in one process."""

from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture
