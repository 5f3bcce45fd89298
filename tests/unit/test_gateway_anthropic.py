"""Anthropic's format: what passes, what is refused and why, what is held for, what is read off the answers."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ButtressError, InternalFault, InvalidInput, NotFound, Unavailable
from llm_gateway.accounting import TokenCounts
from llm_gateway.catalog import Deployment
from llm_gateway.catalog_load import load_catalog
from llm_gateway.limits.estimate import Estimate, ModelBounds
from llm_gateway.limits.ledger import LimitExceeded, LimitName, LimitState
from llm_gateway.wire.anthropic_answer import MessageStream, read_message, read_token_count, read_usage
from llm_gateway.wire.anthropic_dialect import ANTHROPIC
from llm_gateway.wire.anthropic_messages import COUNT_TOKENS, MESSAGES
from llm_gateway.wire.format import AnswerUnusable, FormatRequest, StreamFault
from tests.unit.test_gateway_sse import cut

Json = dict[str, Any]  # bodies are JSON of many shapes
BOUNDS = ModelBounds(context_window=8192, max_output_tokens=256, image_tokens=100)
ASK: Json = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello?"}]}
WRITABLE = st.characters(exclude_characters="\0", codec="utf-8")
EPHEMERAL = {"type": "ephemeral"}
FIVE_MINUTES, HOUR = {**EPHEMERAL, "ttl": "5m"}, {**EPHEMERAL, "ttl": "1h"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk=" * 999}}


@pytest.fixture
def deployment() -> Deployment:
    catalog = load_catalog(Path("llm_gateway/models.toml"), {"BUTTRESS_LLM_URL": "http://127.0.0.1/v1"})
    return catalog.find("local/smollm2").deployments[0]


def parsed(headers: dict[bytes, bytes] | None = None, **fields: object) -> FormatRequest:
    return MESSAGES.parse(orjson.dumps({**ASK, **fields}), headers or {}, max_json_depth=32)


def estimated(**fields: object) -> Estimate:
    return MESSAGES.estimate(parsed(None, **fields), BOUNDS)


def said(*blocks: object) -> list[Json]:
    return [{"role": "user", "content": list(blocks)}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mcp_servers": [{"type": "url", "url": "http://10.0.0.1"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"fallbacks": [{"model": "dearer"}]}, "fallbacks"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"api_base": "http://10.0.0.1"}, "api_base"),
        ({"Model": "dearer"}, "Model"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools.0"),
        ({"tools": [{"name": "mine"}, {"type": "mcp_toolset"}]}, "tools.1"),
        ({"tools": {"type": "custom"}}, "tools"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits.0"),
        ({"messages": said({"type": "container_upload", "file_id": "f"})}, "messages[0].content[0]"),
        (
            {"messages": said({"type": "image", "source": {"type": "file", "file_id": "f"}})},
            "messages[0].content[0]",
        ),
        ({"messages": said({**PICTURE, "transformations": {}})}, "messages.0.content.0"),
        (
            {"messages": said({"type": "document", "source": {"type": "url", "url": "http://10.0.0.1"}})},
            "messages.0.content.0.source",
        ),
        (
            {"messages": said({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "server_tool_use"}]})},
            "messages[0].content[0].content[0]",
        ),
        ({"messages": said({"type": "text", "Text": "x"})}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "messages.0.content"),
        ({"messages": []}, "messages"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": False}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"model": 7}, "model"),
        ({"cache_control": {"ttl": "1d"}}, "cache_control"),
        ({"tools": [{"type": "computer_toolset_20260801"}]}, "tools.0"),
    ],
    ids=str,
)
def test_what_has_no_price_or_reaches_too_far_is_refused_by_name(fields: Json, param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        estimated(**fields)
    assert (refused.value.details or {})["param"] == param
    assert orjson.loads(ANTHROPIC.error_body(refused.value, "r"))["error"]["message"].startswith(f"{param}: ")


@pytest.mark.parametrize("version", [b"2023-01-01", b"2027-01-01", b"x"])
def test_a_version_that_nobody_read_is_refused(version: bytes) -> None:
    with pytest.raises(InvalidInput):
        parsed({b"anthropic-version": version})


def test_betas_that_are_safe_pass_and_others_do_not() -> None:
    betas = b"mcp-client-2025-11-20, interleaved-thinking-2025-05-14,context-1m-2025-08-07,pdfs-2024-09-25"
    headers = parsed({b"anthropic-beta": betas, b"anthropic-version": b"2026-10-21"}).headers
    assert headers == {
        "anthropic-beta": "interleaved-thinking-2025-05-14,pdfs-2024-09-25",
        "anthropic-version": "2026-10-21",
    }
    assert parsed({b"anthropic-beta": b"fast-mode-2026-02-01"}).headers == {"anthropic-version": "2023-06-01"}


@given(st.text(WRITABLE, max_size=200), st.text(WRITABLE, max_size=50))
def test_a_prompt_is_bounded_by_its_bytes(text: str, system: str) -> None:
    tokens = estimated(messages=said({"type": "text", "text": text}), system=system).prompt_tokens
    assert tokens >= len(text.encode("utf-8")) + len(system.encode("utf-8"))


def test_pictures_count_by_number_and_pdfs_as_all_that_fits() -> None:
    plain = estimated(messages=said({"type": "text", "text": "?"})).prompt_tokens
    assert 200 <= estimated(messages=said(PICTURE, PICTURE, {"type": "text", "text": "?"})).prompt_tokens - plain < 300
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}}
    assert estimated(messages=said(pdf)).prompt_tokens == BOUNDS.context_window
    blind = ModelBounds(context_window=8192, max_output_tokens=256)
    for block in (PICTURE, pdf):
        with pytest.raises(InvalidInput):
            MESSAGES.estimate(parsed(messages=said(block)), blind)


def test_tools_that_the_client_runs_are_held_for() -> None:
    plain = estimated().prompt_tokens
    own = estimated(tools=[{"name": "f", "input_schema": {}}]).prompt_tokens
    theirs = estimated(tools=[{"type": "bash_20250124", "name": "bash"}]).prompt_tokens
    assert plain + 1024 < own < theirs - 1024


@pytest.mark.parametrize(
    ("fields", "classes"),
    [
        ({}, ()),
        ({"cache_control": EPHEMERAL}, (("cache_write_5m", "cache_control"),)),
        (
            {"system": [{"type": "text", "text": "x", "cache_control": HOUR}]},
            (("cache_write_1h", "system[0]"),),
        ),
        (
            {
                "tools": [{"name": "f", "cache_control": HOUR}],
                "messages": said({"type": "tool_result", "content": [{**PICTURE, "cache_control": FIVE_MINUTES}]}),
            },
            (
                ("cache_write_1h", "tools[0]"),
                ("cache_write_5m", "messages[0].content[0].content[0]"),
            ),
        ),
        ({"tools": [{"name": "f", "input_schema": {"cache_control": HOUR}}]}, ()),
    ],
    ids=["none", "whole", "system", "nested", "schema"],
)
def test_writing_the_cache_is_seen_wherever_it_is_asked_for(fields: Json, classes: tuple[tuple[str, str], ...]) -> None:
    assert estimated(**fields).classes == classes


def test_the_maximum_is_clamped_and_thinking_with_it(deployment: Deployment) -> None:
    request = parsed(max_tokens=5000, thinking={"type": "enabled", "budget_tokens": 4000})
    estimate = Estimate(prompt_tokens=1, max_output_tokens=2000, choices=1)
    body = MESSAGES.upstream_body(request, deployment, estimate)
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (2000, 1999)
    assert request.body["thinking"]["budget_tokens"] == 4000
    unclamped = MESSAGES.upstream_body(request, deployment, Estimate(1, 5000, 1))
    assert unclamped["thinking"]["budget_tokens"] == 4000


def test_a_count_holds_nothing_and_asks_for_no_answer(deployment: Deployment) -> None:
    request = COUNT_TOKENS.parse(orjson.dumps(ASK), {}, max_json_depth=8)
    estimate = COUNT_TOKENS.estimate(request, BOUNDS)
    assert estimate.tokens == 0
    assert COUNT_TOKENS.upstream_body(request, deployment, estimate).keys() == {"model", "messages"}
    with pytest.raises(InvalidInput):
        COUNT_TOKENS.estimate(parsed(tools=[{"type": "web_search_20260318"}]), BOUNDS)


@pytest.mark.parametrize("where", ["image", "tool_result", "document"])
def test_what_would_be_fetched_here_is_not_translated(where: str) -> None:
    picture = {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/x"}}
    block = {
        "image": picture,
        "tool_result": {"type": "tool_result", "tool_use_id": "t", "content": [picture]},
        "document": {"type": "document", "source": {"type": "content", "content": [picture]}},
    }[where]
    with pytest.raises(InvalidInput):
        MESSAGES.check_translatable(parsed(messages=said(block)))
    text = {"type": "tool_use", "id": "t", "name": "fetch", "input": {"source": {"type": "url", "url": "http://x"}}}
    MESSAGES.check_translatable(parsed(messages=said(PICTURE, text)))


USAGE: Json = {
    "input_tokens": 7,
    "cache_read_input_tokens": 11,
    "cache_creation_input_tokens": 8,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 5},
    "output_tokens": 1,
}
START = TokenCounts(input=7, cached_input=11, cache_write_5m=3, cache_write_1h=5, output=1)


@pytest.mark.parametrize(
    ("raw", "before", "counts"),
    [
        (USAGE, None, START),
        ({"input_tokens": 7, "output_tokens": 2}, None, TokenCounts(input=7, output=2)),
        # written without saying for how long: the ordinary five minutes
        ({**USAGE, "cache_creation": None}, None, TokenCounts(input=7, cached_input=11, cache_write_5m=8, output=1)),
        ({**USAGE, "cache_creation_input_tokens": 10}, None, TokenCounts(
            input=7, cached_input=11, cache_write_5m=5, cache_write_1h=5, output=1
        )),
        # cumulative: what is left out stays
        ({"output_tokens": 40}, START, TokenCounts(
            input=7, cached_input=11, cache_write_5m=3, cache_write_1h=5, output=40
        )),
        ({"input_tokens": 9, "cache_creation_input_tokens": 8, "output_tokens": 40}, START, TokenCounts(
            input=9, cached_input=11, cache_write_5m=3, cache_write_1h=5, output=40
        )),
        ({"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 30}}, START, TokenCounts(
            input=7, cached_input=11, cache_write_5m=3, cache_write_1h=5, output=10, reasoning=30
        )),
        ({"output_tokens": 4, "output_tokens_details": {"thinking_tokens": 30}}, START, TokenCounts(
            input=7, cached_input=11, cache_write_5m=3, cache_write_1h=5, reasoning=4
        )),
        (None, START, START),
        ({"output_tokens": "many"}, START, START),
        ({"output_tokens": 4}, None, None),
        ({"input_tokens": -1, "output_tokens": 4}, None, None),
        ([], None, None),
    ],
)  # fmt: skip
def test_usage_is_read_by_class(raw: object, before: TokenCounts | None, counts: TokenCounts | None) -> None:
    assert read_usage(raw, before) == counts


def event(body: Json) -> bytes:
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"


def delta(kind: str, **fields: str) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}})


BEGIN = event({"type": "message_start", "message": {"usage": USAGE}})
END = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}})
STOP = event({"type": "message_stop"})


@given(st.lists(st.text(min_size=1, max_size=12), max_size=8), st.data())
def test_every_byte_of_a_stream_passes_wherever_it_is_cut(texts: list[str], data: st.DataObject) -> None:
    deltas = [delta("text_delta", text=text) for text in texts]
    came = b"".join([BEGIN, event({"type": "ping"}), b": a comment\n\n", *deltas, END, STOP])
    stream = MessageStream(held_tokens=100)
    passed = b"".join([*(stream.feed(piece) for piece in data.draw(cut(came))), stream.end()])
    assert passed == came
    assert (stream.complete, stream.ended, stream.chunks) == (True, True, len(texts))
    assert stream.counts == TokenCounts(input=7, cached_input=11, cache_write_5m=3, cache_write_1h=5, output=4)


def test_thoughts_and_arguments_are_output_and_signatures_are_not() -> None:
    stream = MessageStream(held_tokens=100)
    tool = event({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f", "input": {}}})
    for one in (delta("thinking_delta", thinking="hm"), tool, delta("input_json_delta", partial_json="{")):
        stream.feed(one)
    assert stream.chunks == 2
    stream.feed(delta("signature_delta", signature="x" * 5000))
    # the name of the tool was written, too, and what is around it
    assert (stream.chunks, stream.complete, stream.output_tokens, bytes(stream.text)) == (2, False, 11, b"hm{")


def test_figures_that_the_provider_takes_back_stand() -> None:
    stream = MessageStream(held_tokens=100)
    stream.feed(BEGIN + event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}))
    for usage in ({"output_tokens": 2}, {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 9}):
        stream.feed(event({"type": "message_delta", "delta": {}, "usage": usage}))
    stream.feed(event({"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 0}}}))
    assert stream.counts == TokenCounts(input=7, cached_input=11, cache_write_5m=3, cache_write_1h=5, output=9)


@pytest.mark.parametrize("kind", [["text_delta"], "something_of_tomorrow", None])
def test_a_delta_of_an_unknown_kind_counts_where_nobody_reports_usage(kind: object) -> None:
    stream = MessageStream(held_tokens=100)
    stream.feed(event({"type": "content_block_delta", "delta": {"type": kind, "words": "x" * 30}}))
    assert (stream.chunks, stream.fault, stream.output_tokens) == (0, None, 10)
    stream.feed(event({"type": "content_block_start", "content_block": {"type": "x", "data": "y" * 3000}}))
    assert (stream.fault, stream.output_tokens) == (None, 100)  # at most all that was held


def test_noughts_are_no_figures() -> None:
    """litellm opens every message with them; a client who left then would have had its prompt for nothing."""
    stream = MessageStream(held_tokens=100)
    stream.feed(event({"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}}))
    assert stream.counts is None
    stream.feed(event({"type": "message_delta", "delta": {}, "usage": {"input_tokens": 7, "output_tokens": 2}}))
    assert stream.counts == TokenCounts(input=7, output=2)


def test_not_one_chunk_more_than_was_held_is_passed_on() -> None:
    stream = MessageStream(held_tokens=2)
    chunks = [delta("text_delta", text=str(number)) for number in range(5)]
    assert stream.feed(BEGIN + b"".join(chunks)) == BEGIN + chunks[0] + chunks[1]
    assert stream.fault is StreamFault.TOO_MUCH


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"event: ping\ndata: {nonsense\n\n", StreamFault.MALFORMED),
        (event({"type": "error", "error": {"message": "sk-secret is bad"}}), StreamFault.PROVIDER_ERROR),
    ],
)
def test_what_cannot_be_passed_on_is_not(raw: bytes, fault: StreamFault) -> None:
    stream = MessageStream(held_tokens=100)
    assert stream.feed(BEGIN + raw + STOP) == BEGIN
    assert stream.fault is fault


def test_the_event_that_ends_a_broken_stream() -> None:
    raw = MessageStream(held_tokens=1).error_event(Unavailable("No."), "req_1")
    assert raw.startswith(b"event: error\ndata: {")
    assert orjson.loads(raw.split(b"data: ")[1]) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "No.", "details": {"error_code": "unavailable"}},
        "request_id": "req_1",
    }


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b'{"type": "message"}', b'{"type": "error"}'])
def test_what_is_no_message_cannot_be_used(raw: bytes) -> None:
    with pytest.raises(AnswerUnusable):
        read_message(raw)
    with pytest.raises(AnswerUnusable):
        read_token_count(raw)


def test_a_message_without_usage_gives_the_bytes_of_what_was_written() -> None:
    content = [
        {"type": "text", "text": "naïve"},
        {"type": "tool_use", "input": {"a": 1}},
        {"type": "thinking", "thinking": "x"},
    ]
    whole = read_message(orjson.dumps({"type": "message", "content": content}))
    assert (whole.counts, whole.text_bytes) == (None, 6 + 7 + 1)
    assert read_message(b'{"type": "message", "content": []}').text_bytes == 0


STATE = LimitState(limit=60, remaining=-1, reset_s=12.5)


@pytest.mark.parametrize(
    ("name", "may_retry"), [("requests_per_minute", True), ("nano_usd_per_month", False), ("nano_usd_per_day", False)]
)
def test_refusals_of_a_limit(*, name: LimitName, may_retry: bool) -> None:
    refusal = LimitExceeded(
        "No.", scope="user", limit_name=name, retry_after_s=3.2, state=STATE, requests=STATE, tokens=None
    )
    assert orjson.loads(ANTHROPIC.error_body(refusal, "r"))["error"]["type"] == "rate_limit_error"
    headers = dict(ANTHROPIC.error_headers(refusal))
    assert (headers[b"retry-after"], headers[b"anthropic-ratelimit-requests-remaining"]) == (b"4", b"0")
    assert headers[b"anthropic-ratelimit-requests-reset"].endswith(b"Z")
    assert b"anthropic-ratelimit-tokens-limit" not in headers
    assert (b"x-should-retry" not in headers) == may_retry


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFound("No."), "not_found_error"),
        (InvalidInput("No."), "invalid_request_error"),
        (InternalFault("No."), "api_error"),
    ],
)
def test_errors_have_anthropics_types(error: ButtressError, kind: str) -> None:
    assert orjson.loads(ANTHROPIC.error_body(error, "r"))["error"]["type"] == kind
