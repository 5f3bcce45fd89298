"""Rules about content at the gateway's door: what a workspace, a plan and an operator decide is what happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.callers import Caller, Team, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import none_held, open_holds, set_limits, usage_rows
from tests.support.gateway_server import MODELS_TOML, GatewayServer, gateway_on
from tests.support.stack import RunningStack

CANARY = "canary-prompt-5c1d"
TELLING = "I am jane.doe@example.com, call (415) 555-2671, card 4111 1111 1111 1111."
REDACTED = "I am [EMAIL], call [PHONE], card [CARD]."
ALIASES = """
[[aliases]]
name = "fake/alias"
alias_of = "fake/chat"
"""
ENDPOINTS: dict[str, dict[str, object]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": TELLING}], "max_tokens": 50},
    "/messages": {"messages": [{"role": "user", "content": TELLING}], "max_tokens": 50},
    "/responses": {"input": TELLING, "max_output_tokens": 50},
}
MODEL_OF = {"/chat/completions": "fake/chat", "/messages": "fake/claude", "/responses": "fake/chat"}


def withdrawn_words(stack: RunningStack) -> Path:
    """The words of which none may be in an answer any more."""
    return stack.state_dir / "withdrawn-words"


@pytest.fixture(scope="module")
def server(stack: RunningStack, fake_provider: FakeProvider) -> Iterator[GatewayServer]:
    hooks = ("ForbidsAWord", "Breaks", "Lengthens", "Hangs", "Ponders", "Withdraws")
    withdrawn_words(stack).write_text("")
    environment = {
        "BUTTRESS_CONTENT_HOOKS": ", ".join(f"tests.support.content_hooks:{hook}" for hook in hooks),
        "WITHDRAWN_WORDS": str(withdrawn_words(stack)),
    }
    with gateway_on(
        stack, fake_provider, name="gateway-content", models_toml=MODELS_TOML + ALIASES, extra_environment=environment
    ) as running:
        yield running


async def settle_on(database: asyncpg.Connection, team: Team, **settings: object) -> None:
    """The workspace's settings are these. Nobody of the team has called yet, so no process remembers others."""
    columns = ", ".join(settings)
    places = ", ".join(f"${number}" for number in range(2, len(settings) + 2))
    await database.execute(
        f"insert into gateway.workspace_settings (workspace_id, {columns}) values ($1, {places})",
        team.workspace_id,
        *settings.values(),
    )


async def ask(
    server: GatewayServer, caller: Caller, body: Mapping[str, object], *, path: str = "/chat/completions", team: Team
) -> httpx.Response:
    headers = {"x-buttress-workspace": str(team.workspace_id), "anthropic-version": "2023-06-01"}
    async with server.http(caller) as client:
        return await client.post(path, json={"model": MODEL_OF[path], **body}, headers=headers)


async def ask_again(server: GatewayServer, team: Team, body: Mapping[str, object]) -> httpx.Response:
    """The member's call, for which an answer that was given before will do."""
    headers = {"x-buttress-workspace": str(team.workspace_id), "x-buttress-cache": "max-age=600"}
    async with server.http(team.member) as client:
        return await client.post("/chat/completions", json={"model": "fake/chat", **body}, headers=headers)


async def cached(database: asyncpg.Connection, team: Team, *, count: int) -> None:
    """So many answers of the team's are in the cache (storing takes a moment)."""

    async def they_are() -> bool:
        query = "select count(*) from gateway.cached_answers where tenant_id = $1"
        return int(await database.fetchval(query, team.workspace_id)) == count

    await eventually(they_are)


def said(answer: httpx.Response) -> str:
    """What the model said, streamed or not."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def prompts(fake_provider: FakeProvider) -> str:
    """All that the provider was told."""
    return "\n".join(seen.body for seen in fake_provider.requests())


def bodies(fake_provider: FakeProvider) -> list[dict[str, object]]:
    """The same, read."""
    return [json.loads(seen.body) for seen in fake_provider.requests()]


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_provider_is_told_nothing_personal_where_the_workspace_wants_that(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider, path: str
) -> None:
    await settle_on(database, team, redact=True)
    assert (await ask(server, team.member, ENDPOINTS[path], path=path, team=team)).status_code == 200
    assert REDACTED in prompts(fake_provider)
    for personal in ("jane", "555-2671", "4111"):
        assert personal not in prompts(fake_provider)


async def test_elsewhere_it_is_told_what_was_written(
    server: GatewayServer, team: Team, fake_provider: FakeProvider
) -> None:
    assert (await ask(server, team.member, ENDPOINTS["/chat/completions"], team=team)).status_code == 200
    assert TELLING in prompts(fake_provider)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_caller_is_told_nothing_personal_where_the_workspace_wants_that(
    *,
    server: GatewayServer,
    team: Team,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
    path: str,
    stream: bool,
) -> None:
    await settle_on(database, team, redact_answers=True)
    fake_provider.script(Step(text=f"{TELLING} And that is all.", split_bytes=5))
    answer = await ask(server, team.member, {**ENDPOINTS[path], "stream": stream}, path=path, team=team)
    assert answer.status_code == 200
    for personal in ("jane", "555-2671", "4111"):
        assert personal not in answer.text
    assert "[EMAIL]" in answer.text
    assert "all." in answer.text
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["outcome"], row["estimated"]) == ("ok", False)


async def test_arguments_of_tools_are_redacted_and_still_json(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await settle_on(database, team, redact_answers=True)
    fake_provider.script(Step(tool_calls=(ToolCall(name="f", arguments='{"to": "jane@example.com"}'),), times=0))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    body = {**ENDPOINTS["/chat/completions"], "tools": tools}
    whole = await ask(server, team.member, body, team=team)
    call = whole.json()["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"to": "[EMAIL]"}
    streamed = await ask(server, team.member, {**body, "stream": True}, team=team)
    assert "jane" not in streamed.text
    assert "[EMAIL]" in streamed.text


@pytest.mark.parametrize(
    "name",
    [
        "FAKE/CHAT",
        "Fake/Chat",
        "fake/chat ",
        "fake/ch\u0430t",
        "\uff46ake/chat",
        "fake//chat",
        "fake/alias",
        "fake/o-series",
    ],
)
async def test_a_model_that_is_not_on_the_list_is_refused_before_anything_is_held(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider, name: str
) -> None:
    await settle_on(database, team, models=["fake/chat"])
    refused = await ask(server, team.member, {**ENDPOINTS["/chat/completions"], "model": name}, team=team)
    assert refused.status_code in {403, 404}
    assert refused.json()["error"]["code"] in {"model_not_allowed", "model_not_found"}
    assert fake_provider.bill().counts.requests == 0
    meters = "select count(*) from gateway.meters where subject_id = any($1::uuid[])"
    assert await database.fetchval(meters, [team.member.user_id, team.workspace_id]) == 0


@pytest.mark.parametrize("path", [*ENDPOINTS, "/messages/count_tokens", "/embeddings"])
async def test_the_list_holds_at_every_address(
    server: GatewayServer, team: Team, database: asyncpg.Connection, path: str
) -> None:
    await settle_on(database, team, models=["fake/impatient"])
    counted: dict[str, object] = {"messages": ENDPOINTS["/messages"]["messages"]}
    of_path: dict[str, dict[str, object]] = {"/embeddings": {"input": "x"}, "/messages/count_tokens": counted}
    body = {**(of_path.get(path) or ENDPOINTS[path]), "model": "fake/chat"}
    async with server.http(team.member) as client:
        headers = {"x-buttress-workspace": str(team.workspace_id), "anthropic-version": "2023-06-01"}
        refused = await client.post(path, json=body, headers=headers)
    assert refused.status_code == 403, refused.text


async def test_a_model_on_the_list_may_not_hand_over_to_one_that_is_not(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await settle_on(database, team, models=["fake/with-fallback"])
    body = {**ENDPOINTS["/chat/completions"], "model": "fake/with-fallback"}
    refused = await ask(server, team.member, body, team=team)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "provider_unreachable")
    assert fake_provider.bill().counts.requests == 0


async def test_what_a_plan_allows_is_the_most_that_a_provider_is_asked_for(
    server: GatewayServer, stack: RunningStack, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    plan = f"small-{uuid4().hex[:8]}"
    await database.execute(
        "insert into gateway.plans (name, max_output_tokens, max_choices, requests_per_minute, tokens_per_minute,"
        " calls_in_flight, nano_usd_per_month) values ($1, 7, 2, 100, 1000000, 100, 1000000000000)",
        plan,
    )
    await database.execute(
        "insert into gateway.limits (scope, subject_id, plan) values ('user', $1, $2)", team.member.user_id, plan
    )
    body = {**ENDPOINTS["/chat/completions"], "n": 5, "max_tokens": 200}
    answer = await ask(server, team.member, body, team=team)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["choices"]) == 2
    [seen] = bodies(fake_provider)
    assert (seen["max_tokens"], seen["n"]) == (7, 2)
    for path in ("/messages", "/responses"):
        await ask(server, team.member, ENDPOINTS[path], path=path, team=team)
    asked = bodies(fake_provider)[1:]
    assert [body.get("max_tokens", body.get("max_output_tokens")) for body in asked] == [7, 7]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_rule_of_the_operators_refuses_a_question_for_nothing_but_a_request(
    *, server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider, stream: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "forbidden-question"}], "stream": stream}
    refused = await ask(server, team.member, body, team=team)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "content_denied")
    assert error["message"] == "This question is not allowed here."
    assert refused.headers["x-should-retry"] == "false"
    assert fake_provider.bill().counts.requests == 0
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("voided", 0)
    await none_held(database, team.member)


@pytest.mark.parametrize("limits", [{"nano_usd_per_month": 0}, {"requests_per_minute": 0}, {"tokens_per_day": 5}])
async def test_no_rule_works_for_who_is_over_their_limits(
    server: GatewayServer, team: Team, database: asyncpg.Connection, limits: dict[str, int]
) -> None:
    await set_limits(database, team.member, **limits)
    for said in ("forbidden-question", "hang-the-rule", "break-the-rule"):
        body = {"messages": [{"role": "user", "content": said}]}
        refused = await ask(server, team.member, body, team=team)
        assert refused.json()["error"]["code"] in {"call_exceeds_limit", "insufficient_quota"}, refused.text


@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_nothing_left_is_given_a_short_answer_of_before_and_no_rule_works_for_a_long_question(
    *, server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider, stream: bool
) -> None:
    short = {"messages": [{"role": "user", "content": "Hi."}], "stream": stream}
    long = {"messages": [{"role": "user", "content": "forbidden-question " * 2000}], "stream": stream}
    first = await ask_again(server, team, short)
    await cached(database, team, count=1)
    await set_limits(database, team.member, nano_usd_per_month=1)
    assert (await ask_again(server, team, short)).content == first.content
    refused = await ask_again(server, team, long)
    assert refused.json()["error"]["code"] in {"call_exceeds_limit", "insufficient_quota"}
    missed = await ask_again(server, team, {"messages": [{"role": "user", "content": "Something new."}]})
    assert missed.json()["error"]["code"] in {"call_exceeds_limit", "insufficient_quota"}
    assert missed.headers["x-buttress-cache"] == "miss"
    assert fake_provider.bill().counts.requests == 1
    await none_held(database, team.member)


async def test_what_a_rule_makes_longer_is_held_for_before_it_is_sent(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, team.member, nano_usd_per_month=5_000_000)
    body = {"messages": [{"role": "user", "content": "please-lengthen"}], "max_tokens": 5}
    refused = await ask(server, team.member, body, team=team)  # by its bytes: nobody knows this model's tokens
    assert refused.json()["error"]["code"] == "call_exceeds_limit"
    assert fake_provider.bill().counts.requests == 0
    counted = await ask(server, team.member, {**body, "model": "fake/priced"}, team=team)
    assert counted.status_code == 200, counted.text
    _, row = await usage_rows(database, team.member, count=2)
    assert row["held_nano_usd"] >= row["cost_nano_usd"] >= 2_000_000
    await none_held(database, team.member)


async def test_what_was_counted_to_be_held_is_counted_again_once_it_is_redacted(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await settle_on(database, team, redact=True)
    await set_limits(database, team.member, nano_usd_per_month=5_000_000)
    text = "word " * 2000 + "jane@example.com"
    body = {"model": "fake/priced", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
    answer = await ask(server, team.member, body, team=team)
    assert answer.status_code == 200, answer.text
    assert "word [EMAIL]" in prompts(fake_provider)


async def test_an_answer_of_before_is_given_by_todays_rules(
    server: GatewayServer, stack: RunningStack, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="It was marmalade.", times=0))
    bodies_ = [{"messages": [{"role": "user", "content": "Hi."}], "stream": stream} for stream in (False, True)]
    for body in bodies_:
        assert "marmalade" in (await ask_again(server, team, body)).text
    await cached(database, team, count=2)
    withdrawn_words(stack).write_text("marmalade")
    try:
        for body in bodies_:
            denied = await ask_again(server, team, body)
            assert (denied.status_code, denied.json()["error"]["code"]) == (400, "content_denied")
            assert denied.headers["x-buttress-cache"] == "hit"
    finally:
        withdrawn_words(stack).write_text("")
    assert fake_provider.bill().counts.requests == 2
    rows = await usage_rows(database, team.member, count=4)
    assert [row["outcome"] for row in rows] == ["ok", "ok", "cached", "cached"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_redacted_answer_is_given_again_as_it_was(
    *, server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider, stream: bool
) -> None:
    await settle_on(database, team, redact_answers=True)
    fake_provider.script(Step(text=f"{TELLING} And that is all.", split_bytes=5))
    body = {**ENDPOINTS["/chat/completions"], "stream": stream}
    first = await ask_again(server, team, body)
    await cached(database, team, count=1)
    again = await ask_again(server, team, body)
    assert again.headers["x-buttress-cache"] == "hit"
    assert said(again) == said(first) == f"{REDACTED} And that is all."
    assert "jane" not in again.text


async def test_a_rule_that_hangs_ends_the_call_for_nothing(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    body = {"messages": [{"role": "user", "content": "hang-the-rule"}]}
    refused = await ask(server, team.member, body, team=team)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "content_rule_failed")
    assert "retry-after" in refused.headers
    assert fake_provider.bill().counts.requests == 0
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("voided", 0)
    await none_held(database, team.member)


async def test_who_leaves_while_a_rule_works_pays_nothing(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    body = {"messages": [{"role": "user", "content": "ponder-this"}]}
    asking = asyncio.create_task(ask(server, team.member, body, team=team))

    async def it_is_held() -> bool:
        return await open_holds(database, team.member) == 1

    await eventually(it_is_held)
    asking.cancel()
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("voided", 0)
    await none_held(database, team.member)
    assert fake_provider.bill().counts.requests == 0


async def test_a_rule_that_hangs_at_the_answer_withholds_what_is_paid_for(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="hang-the-answer"))
    logged = len(server.log_lines("content_rule_failed"))
    withheld = await ask(server, team.member, {"messages": [{"role": "user", "content": "Hi."}]}, team=team)
    assert (withheld.status_code, withheld.json()["error"]["code"]) == (503, "answer_withheld")
    assert withheld.headers["x-should-retry"] == "false"
    assert "hang-the-answer" not in withheld.text
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["outcome"], row["estimated"]) == ("ok", False)
    assert row["cost_nano_usd"] > 0
    [line] = server.log_lines("content_rule_failed")[logged:]
    assert (line["rule"], line["late"]) == ("hangs", True)


async def test_a_rule_of_the_operators_rewrites_a_question(
    server: GatewayServer, team: Team, fake_provider: FakeProvider
) -> None:
    body = {"messages": [{"role": "user", "content": "please-shout"}]}
    assert (await ask(server, team.member, body, team=team)).status_code == 200
    assert "SHOUT" in prompts(fake_provider)


async def test_a_rule_of_the_operators_withholds_an_answer_that_is_paid_for(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="here is the forbidden-answer", times=2))
    body = {"messages": [{"role": "user", "content": "Hi."}]}
    whole = await ask(server, team.member, body, team=team)
    assert (whole.status_code, whole.json()["error"]["code"]) == (400, "content_denied")
    streamed = await ask(server, team.member, {**body, "stream": True}, team=team)
    assert "content_denied" in streamed.text
    assert "[DONE]" not in streamed.text
    rows = await usage_rows(database, team.member, count=2)
    assert all(row["cost_nano_usd"] > 0 for row in rows)
    assert await open_holds(database, team.member) == 0


async def test_a_rule_that_breaks_lets_nothing_pass(
    server: GatewayServer, team: Team, fake_provider: FakeProvider
) -> None:
    refused = await ask(server, team.member, {"messages": [{"role": "user", "content": "break-the-rule"}]}, team=team)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "content_rule_failed")
    assert "stranger" not in refused.text
    assert fake_provider.bill().counts.requests == 0


async def whole_database(database: asyncpg.Connection) -> str:
    """Every row of every table of ours, as text."""
    tables = await database.fetch(
        "select format('%I.%I', schemaname, tablename) from pg_tables"
        " where schemaname in ('api', 'private', 'gateway', 'jobs', 'public')"
    )
    rows = [await database.fetch(f"select t::text from {table[0]} t") for table in tables]
    return "\n".join(str(row[0]) for found in rows for row in found)


async def test_a_prompt_is_stored_nowhere_unless_its_workspace_wants_that(
    server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    canary = f"canary-prompt-{uuid4().hex}"  # another workspace may want its own to be stored
    fake_provider.script(Step(echo_prompt=True, times=0))
    body = {"messages": [{"role": "user", "content": canary}]}
    headers = {"x-buttress-workspace": str(team.workspace_id), "x-buttress-cache": "max-age=60"}
    async with server.http(team.member) as client:
        for stream in (False, True):
            answer = await client.post(
                "/chat/completions", json={**body, "model": "fake/chat", "stream": stream}, headers=headers
            )
            assert canary in answer.text
    await usage_rows(database, team.member, count=2)
    await cached(database, team, count=2)
    assert canary not in await whole_database(database)
    assert canary not in server.log_file.read_text()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_workspace_that_wants_it_keeps_what_was_sent_and_given(
    *, server: GatewayServer, team: Team, database: asyncpg.Connection, fake_provider: FakeProvider, stream: bool
) -> None:
    await settle_on(database, team, store_content=True, store_days=3, redact=True)
    fake_provider.script(Step(text="It is sunny."))
    body = {"messages": [{"role": "user", "content": f"{CANARY} jane@example.com"}], "stream": stream}
    answer = await ask(server, team.member, body, team=team)

    async def stored() -> bool:
        query = "select count(*) from gateway.stored_contents where workspace_id = $1"
        return int(await database.fetchval(query, team.workspace_id)) == 1

    await eventually(stored)
    query = "select *, expires_at - created_at as kept_for from gateway.stored_contents where workspace_id = $1"
    row = await database.fetchrow(query, team.workspace_id)
    assert row is not None
    assert CANARY in row["request"]
    assert "[EMAIL]" in row["request"]
    assert row["answer"] == answer.text
    assert (row["user_id"], row["model"], row["endpoint"]) == (team.member.user_id, "fake/chat", "chat")
    assert (row["is_stream"], row["is_cut"]) == (stream, False)
    assert row["call_id"] == answer.headers["x-buttress-call-id"]
    assert round(row["kept_for"].total_seconds() / 86_400) == 3


async def test_a_call_of_nobodys_workspace_is_never_kept(
    server: GatewayServer, stack: RunningStack, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.reset()
    caller = await new_caller(stack, database)
    await database.execute(
        "insert into gateway.workspace_settings (workspace_id, store_content)"
        " select id, true from api.workspaces where is_personal and created_by = $1",
        caller.user_id,
    )
    async with server.http(caller) as client:
        await client.post("/chat/completions", json={"model": "fake/chat", **ENDPOINTS["/chat/completions"]})
    await usage_rows(database, caller, count=1)
    query = "select count(*) from gateway.stored_contents where user_id = $1"
    assert await database.fetchval(query, caller.user_id) == 0
