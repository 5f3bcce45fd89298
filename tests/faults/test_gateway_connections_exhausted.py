"""PostgreSQL has no connection left for the gateway: true credentials are told to come back, and nobody is signed out.

BerriAI/litellm#34479: valid keys were answered with 401 while `max_connections` was exhausted.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import orjson
import pytest

from tests.support.api_keys import new_key
from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_within import ask_within, gateway_within
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.pools import AS_IN_SERVICE_S
from tests.support.stack import RunningStack

ASK = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 20}


@pytest.mark.parametrize("left", [0, 1])  # none at all; one, which the first of the gateway's pools has
async def test_without_a_connection_a_true_credential_is_answered_503_and_never_401(
    *,
    left: int,
    stack: RunningStack,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
    tmp_path: Path,
) -> None:
    key = await new_key(stack, database, caller)
    login = f"few_connections_{uuid4().hex}"
    await database.execute(f"create role {login} login password 'few' in role gateway_service connection limit {left}")
    url = urlsplit(stack.gateway_database_url)
    few = url._replace(netloc=f"{login}:few@{url.hostname}:{url.port}").geturl()
    try:
        async with gateway_within(
            stack,
            fake_provider,
            tmp_path,
            database_url=few,
            database_deadline_s=AS_IN_SERVICE_S,
            models_toml=NATIVE_MODELS_TOML,
        ) as gateway:
            for headers in (caller.headers, key.headers, {"x-api-key": key.secret}):
                answer = await ask_within(gateway, headers, "/chat/completions", ASK)
                assert answer.status == 503
                assert int(answer.headers["retry-after"]) >= 1
                assert orjson.loads(answer.body)["error"]["code"] in {"callers_unavailable", "ledger_unavailable"}
            assert fake_provider.bill().counts.requests == 0
            await database.execute(f"alter role {login} connection limit 10")

            async def answered() -> bool:
                return (await ask_within(gateway, key.headers, "/chat/completions", ASK)).status == 200

            await eventually(answered)
    finally:
        await database.execute(f"drop role {login}")
