"""The short form of `python -m tests.faults.aborted_streams`; memory is that command's to judge."""

from tests.faults.aborted_streams import abort_streams
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack


async def test_every_stream_that_is_left_is_settled_once_and_never_free(
    stack: RunningStack, fake_provider: FakeProvider, gateway: GatewayServer
) -> None:
    fake_provider.reset()
    readings = await abort_streams(stack, fake_provider, gateway, thousands=2, warm_up=0, each=100)
    assert readings.problems == []
    assert readings.calls == 200
    fake_provider.reset()
