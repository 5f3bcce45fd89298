"""The short form of `python -m tests.faults.rolling`."""

import pytest

from tests.faults.rolling import Extent, roll
from tests.support.fake_provider import FakeProvider
from tests.support.pools import PATIENCE_S
from tests.support.stack import RunningStack


@pytest.mark.time_limit(200)  # 20 s alone
async def test_while_gateways_are_replaced_no_request_fails_and_every_stream_is_whole(
    stack: RunningStack, fake_provider: FakeProvider
) -> None:
    # a lame duck as long as thirty of the balancer's checks, in whose process all the clients are
    extent = Extent(restarts=2, streams=4, wholes=2, lame_duck_s=3.0, database_deadline_s=PATIENCE_S)
    seen = await roll(stack, fake_provider, extent)
    assert seen.problems(extent) == []
    assert seen.outcomes["whole stream"] > 5
    assert seen.outcomes["short stream"] == 0
