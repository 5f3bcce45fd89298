"""The short form of `python -m tests.faults.overspend`."""

import pytest

from tests.faults.overspend import Extent, overspend
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack


@pytest.mark.time_limit(200)  # a quarter of a minute alone
async def test_five_nested_limits_hold_against_many_clients_of_two_gateways(
    stack: RunningStack, fake_provider: FakeProvider, gateway: GatewayServer
) -> None:
    fake_provider.reset()
    extent = Extent(calls=1500, processes=2, clients=24, people=3)
    with gateway_on(stack, fake_provider, name="gateway-beside", models_toml=NATIVE_MODELS_TOML) as second:
        verdict = await overspend(stack, fake_provider, [gateway, second], extent, seed=20261121)
    assert verdict.problems == []
    assert sum(verdict.statuses.values()) >= 1500
