"""What a provider's refusal is to the clients of both vendors, whoever the provider is: one table for all.

Each row is asked four times: OpenAI's and Anthropic's client, of a provider that speaks OpenAI's format and of one that
speaks Anthropic's; so two of the four are translated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import asyncpg
import openai
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import PROVIDER_KEY, GatewayServer

ASK: Any = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True)
class Row:
    """A provider's status, and what clients get: a status, our code, whether their SDK may try again."""

    provider: int
    client: int
    code: str
    retried: bool


TABLE = (
    Row(400, 400, "invalid_request", retried=False),
    Row(401, 502, "provider_refused_gateway", retried=False),
    Row(402, 502, "provider_refused_gateway", retried=False),
    Row(403, 502, "provider_refused_gateway", retried=False),
    Row(404, 502, "provider_model_missing", retried=False),
    Row(408, 503, "provider_overloaded", retried=True),
    Row(409, 503, "provider_overloaded", retried=True),
    Row(413, 413, "invalid_request", retried=False),
    Row(422, 422, "invalid_request", retried=False),
    Row(429, 429, "provider_rate_limited", retried=True),
    Row(500, 502, "provider_error", retried=True),
    Row(503, 503, "provider_overloaded", retried=True),
    Row(529, 503, "provider_overloaded", retried=True),
)
OPENAI_RAISES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError, 413: openai.APIStatusError, 422: openai.UnprocessableEntityError,
    429: openai.RateLimitError, 502: openai.InternalServerError, 503: openai.InternalServerError,
}  # fmt: skip
ANTHROPIC_RAISES: dict[int, type[anthropic.APIStatusError]] = {
    400: anthropic.BadRequestError, 413: anthropic.APIStatusError, 422: anthropic.UnprocessableEntityError,
    429: anthropic.RateLimitError, 502: anthropic.InternalServerError, 503: anthropic.InternalServerError,
}  # fmt: skip


async def openais(gateway: GatewayServer, caller: Caller, model: str, *, stream: bool) -> openai.APIStatusError:
    async with gateway.sdk(caller) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(model=model, max_tokens=8, messages=ASK, stream=stream)
    assert type(raised.value) is OPENAI_RAISES.get(raised.value.status_code) or raised.value.status_code == 413
    return raised.value


async def anthropics(gateway: GatewayServer, caller: Caller, model: str, *, stream: bool) -> anthropic.APIStatusError:
    async with gateway.anthropic(caller) as client:
        with pytest.raises(anthropic.APIStatusError) as raised:
            await client.messages.create(model=model, max_tokens=8, messages=ASK, stream=stream)
    assert isinstance(raised.value, ANTHROPIC_RAISES[raised.value.status_code])
    return raised.value


@pytest.mark.parametrize("asked_by", [openais, anthropics])
@pytest.mark.parametrize("model", ["fake/o-series", "fake/claude"])
async def test_a_refusal_is_the_same_to_everybody(
    model: str, asked_by: Callable[..., Any], gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    for row in TABLE:
        fake_provider.reset()
        # the only deployment of a model is asked a second time where that may help
        fake_provider.script(Step(status=row.provider, retry_after_s=9, error_message=PROVIDER_KEY, times=2))
        raised = await asked_by(gateway, caller, model, stream=row.provider % 2 == 0)
        told = raised.response
        assert (row, raised.status_code) == (row, row.client)
        assert row.code in told.text or isinstance(raised, anthropic.APIStatusError)
        assert PROVIDER_KEY not in told.text
        assert (row, told.headers.get("x-should-retry") != "false") == (row, row.retried)
        assert not row.retried or told.headers["retry-after"] == "9"


async def test_a_refusal_costs_nothing(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider, database: asyncpg.Connection
) -> None:
    for model in ("fake/o-series", "fake/claude"):
        fake_provider.script(Step(status=503, retry_after_s=9))
        await openais(gateway, caller, model, stream=False)
    rows = await usage_rows(database, caller, count=2)
    assert [(row["state"], row["cost_nano_usd"]) for row in rows] == [("voided", 0), ("voided", 0)]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, "7"),
        ({"retry-after-ms": "2500", "retry-after": "9"}, "3"),
        ({"retry-after": "Sat, 01 Jan 2000 00:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "999999"}, "3600"),
    ],
)
async def test_how_long_to_wait_is_passed_on_however_it_was_written(
    headers: dict[str, str], seconds: str | None, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=429, headers=headers, times=2))
    raised = await openais(gateway, caller, "fake/o-series", stream=False)
    assert raised.response.headers.get("retry-after") == seconds
