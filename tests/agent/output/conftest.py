"""Virtual time for the tests of output."""

from tests.virtualtime import virtual_clock  # noqa: F401 - a fixture
