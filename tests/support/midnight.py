"""Days, for tests that say "today" and then ask somebody who says it, too."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

LONGER_THAN_SUCH_A_TEST = timedelta(seconds=30)


@pytest.fixture
async def one_day() -> None:
    """The test begins and ends on one day of UTC: shortly before midnight it waits for the next."""
    soon = datetime.now(UTC) + LONGER_THAN_SUCH_A_TEST
    midnight = soon.replace(hour=0, minute=0, second=0, microsecond=0)
    left_s = (midnight - datetime.now(UTC)).total_seconds()
    if left_s > 0:
        await asyncio.sleep(left_s + 0.1)  # a timer may be a little early
