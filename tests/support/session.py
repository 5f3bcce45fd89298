"""How the tests were started, and in which order they were found, does not matter."""

import signal

import pytest

# Each takes a minute or more, alone: begun last, it would be what everybody waits for.
BEGUN_FIRST = ("test_stack_lifecycle.py", "test_embedded_each_patch_is_needed.py")


def pytest_configure() -> None:
    """SIGINT is not ignored: a shell that starts tests in its background leaves them, and all they start, that way."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, all others in the order they were found in."""
    places = {name: place for place, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
