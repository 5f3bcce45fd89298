"""The short form of `python -m tests.faults.aborted_streams`: what it measures as memory is counted as objects here."""

import asyncpg

from tests.faults.aborted_streams import Aborting, of_a_call
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack


async def test_streams_that_are_left_are_settled_once_never_free_and_leave_no_object_behind(
    stack: RunningStack, fake_provider: FakeProvider, gateway: GatewayServer, database: asyncpg.Connection
) -> None:
    fake_provider.reset()
    aborting = await Aborting.at(stack, fake_provider, gateway, database)
    await aborting.leave(50)  # whatever is made once is there
    before = of_a_call(await aborting.held())
    await aborting.leave(150)
    grown: dict[str, int] = {}

    async def forgotten() -> bool:
        nonlocal grown
        after = of_a_call(await gateway.held())
        grown = {name: count - before.get(name, 0) for name, count in after.items() if count - before.get(name, 0) > 30}
        return not grown

    try:
        await eventually(forgotten)
    except AssertionError:
        raise AssertionError(f"150 streams left behind {grown}") from None
    books = await aborting.books()
    assert (books.problems, books.calls) == ([], 200)
    fake_provider.reset()
