"""How the tests were started, in which order they were found and how fast the machine is does not matter."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# Each takes a minute or more, alone: begun last, it would be what everybody waits for.
BEGUN_FIRST = ("test_stack_lifecycle.py", "test_embedded_each_patch_is_needed.py")


def pytest_configure() -> None:
    """SIGINT is not ignored: a shell that starts tests in its background leaves them, and all they start, that way.

    And no property is refuted by the clock.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hypothesis fails an example that took 200 ms, and one whose input took long to make: a busy machine does both.
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, all others in the order they were found in."""
    places = {name: place for place, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
