"""Secrets and prompts are let out like canaries on every way through the gateway; then all that it wrote is searched.

The provider sings along: its refusals, its errors within streams and its headers repeat its key, its address, its
organisation and the prompt.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.api_keys import new_key
from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import none_held, set_limits
from tests.support.gateway_server import ANSWERED_WITHIN_S, PROVIDER_KEY, GatewayServer, gateway_on
from tests.support.stack import RunningStack

METRICS_TOKEN = "metrics-" + secrets.token_hex(16)
PROMPT = "canary-prompt-" + secrets.token_hex(8)
ANSWER = "canary-answer-" + secrets.token_hex(8)
ORGANISATION = "org-canary-" + secrets.token_hex(8)
# litellm is on the way wherever the format is not the provider's own
MODELS = ("fake/chat", "fake/claude")
BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 20},
    "/responses": {"input": PROMPT, "max_output_tokens": 20},
    "/embeddings": {"input": PROMPT},
    "/messages": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 20},
    "/messages/count_tokens": {"messages": [{"role": "user", "content": PROMPT}]},
}


@pytest.fixture(scope="module")
def gateway(stack: RunningStack, fake_provider: FakeProvider) -> Iterator[GatewayServer]:
    with gateway_on(
        stack, fake_provider, name="canaries", extra_environment={"BUTTRESS_METRICS_TOKEN": METRICS_TOKEN}
    ) as server:
        yield server


def songs(provider: FakeProvider) -> tuple[Step, ...]:
    """Everything that a provider may do to what it knows."""
    words = f"{PROVIDER_KEY} {provider.url} {ORGANISATION} {PROMPT}"
    headers = {"openai-organization": ORGANISATION, "x-echo": PROVIDER_KEY}
    return (
        Step(text=ANSWER, headers=headers),
        *(Step(status=status, error_message=words, headers=headers, times=2) for status in (400, 401, 404, 429, 500)),
        Step(status=403, echoes_authorization=True),
        Step(status=307, redirect_to=f"/{PROVIDER_KEY}", times=2),
        Step(text=ANSWER, body="malformed_json"),
        Step(text=f"{ANSWER} and on it goes", error_after_chunks=1, error_message=words),
        Step(text=f"{ANSWER} and on it goes", cut_after_chunks=1),
        Step(connection="close"),
    )


async def test_no_secret_and_no_prompt_is_written_down_or_told_to_anybody(
    gateway: GatewayServer,
    caller: Caller,
    fake_provider: FakeProvider,
    database: asyncpg.Connection,
    stack: RunningStack,
) -> None:
    await set_limits(database, caller, requests_per_minute=10**6, tokens_per_minute=10**9, tokens_per_day=10**9)
    key = await new_key(stack, database, caller)
    told: list[str] = []
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=ANSWERED_WITHIN_S) as client:
        for path, body in BODIES.items():
            for model in MODELS:
                for step in songs(fake_provider):
                    stream = step.error_after_chunks is not None or step.cut_after_chunks is not None
                    fake_provider.reset()
                    fake_provider.script(step)
                    wanted = {"stream": True} if stream and "count" not in path and "embed" not in path else {}
                    try:
                        who = key.headers if stream else caller.headers
                        answer = await client.post(path, json={**body, "model": model, **wanted}, headers=who)
                    except httpx.RemoteProtocolError:
                        continue
                    # what a model says is the client's; all else of an answer is searched
                    told.append(f"{answer.headers} {answer.text if answer.status_code >= 400 or wanted else ''}")
        for path in ("/models", f"/models/{PROVIDER_KEY}"):
            answer = await client.get(path, headers=key.headers)
            told.append(f"{answer.headers} {answer.text if path == '/models' else ''}")
        metrics = await client.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"})
        assert metrics.status_code == 200
        told.append(metrics.text)
    await none_held(database, caller)
    logged = gateway.log_file.read_text()
    stored = [row async for row in every_row(database)]
    assert logged.count("llm_call") > 50
    assert len(stored) > 50
    for name, place in (("answers", "\n".join(told)), ("log", logged), ("database", "\n".join(stored))):
        for canary in (PROVIDER_KEY, ORGANISATION, PROMPT, caller.access_token, key.secret, METRICS_TOKEN):
            assert canary not in place, f"{canary} is in the {name}"
        if name != "answers":
            assert ANSWER not in place, f"an answer is in the {name}"
        if name == "answers":
            assert fake_provider.url not in place, "the provider's address is in an answer"


async def every_row(database: asyncpg.Connection) -> AsyncIterator[str]:
    """Every row of every table as text, whatever its schema."""
    tables = await database.fetch(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')"
    )
    for schema, table in tables:
        for row in await database.fetch(f'select t::text from "{schema}"."{table}" t'):
            yield str(row[0])
