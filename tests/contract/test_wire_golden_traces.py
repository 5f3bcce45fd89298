"""Streams in the very shapes that the vendors send: byte for byte what came is what goes out, wherever it is cut.

The traces have the shapes of the vendors' streams of November 2026 (fields, their order, obfuscation, pings, line ends)
with words and ids of our own.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_gateway.accounting import TokenCounts
from llm_gateway.wire.anthropic_messages import MESSAGES
from llm_gateway.wire.format import Format, FormatRequest
from llm_gateway.wire.openai_chat import CHAT
from llm_gateway.wire.openai_responses import RESPONSES
from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_server import GatewayServer

TRACES = Path(__file__).parent / "traces"


@dataclass(frozen=True)
class Trace:
    """One vendor's stream, the format and the address it belongs to, and what it reports."""

    name: str
    format: Format
    path: str
    counts: TokenCounts

    @property
    def bytes(self) -> bytes:
        return (TRACES / f"{self.name}.sse").read_bytes()


TWO_TOOLS = TokenCounts(input=200, cached_input=1024, cache_write_5m=256, output=11, reasoning=64)
ALL = [
    Trace("openai_chat_text", CHAT, "/chat/completions", TokenCounts(input=21, output=9)),
    Trace("openai_chat_logprobs", CHAT, "/chat/completions", TokenCounts(input=21, output=3)),
    Trace("openai_chat_parallel_tools", CHAT, "/chat/completions", TokenCounts(input=21, output=11)),
    Trace("openai_responses_text", RESPONSES, "/responses", TokenCounts(input=21, output=9)),
    Trace("openai_responses_incomplete", RESPONSES, "/responses", TokenCounts(input=21, output=4)),
    Trace("openai_responses_reasoning_and_parallel_tools", RESPONSES, "/responses", TWO_TOOLS),
    Trace("anthropic_messages_text", MESSAGES, "/messages", TokenCounts(input=25, output=12)),
    Trace(
        "anthropic_messages_thinking_and_tools",
        MESSAGES,
        "/messages",
        TokenCounts(input=25, cache_write_5m=2048, output=96),
    ),
]
EACH = pytest.mark.parametrize("trace", ALL, ids=lambda trace: trace.name)
ASK: dict[str, dict[str, object]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}},
    "/responses": {"input": "hi"},
    "/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 200},
}


def read(trace: Trace, *pieces: bytes, wants_usage: bool = True) -> tuple[bytes, TokenCounts | None]:
    """What goes out for these pieces, and what was counted."""
    request = FormatRequest(body={}, model="m", stream=True, wants_usage=wants_usage)
    reader = trace.format.stream_reader(request, held_tokens=1000)
    passed = b"".join([*(reader.feed(piece) for piece in pieces), reader.end()])
    assert reader.fault is None
    assert reader.complete
    return passed, reader.counts


@EACH
def test_a_trace_passes_byte_for_byte_cut_at_every_place(trace: Trace) -> None:
    whole = trace.bytes
    for place in range(len(whole) + 1):
        assert read(trace, whole[:place], whole[place:]) == (whole, trace.counts)


@EACH
def test_so_it_does_in_pieces_of_every_small_size(trace: Trace) -> None:
    whole = trace.bytes
    for size in (1, 2, 3, 7, 64, 1000):
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert read(trace, *pieces) == (whole, trace.counts)


@EACH
def test_and_with_the_line_ends_of_other_servers(trace: Trace) -> None:
    whole = trace.bytes.replace(b"\n", b"\r\n")
    assert read(trace, *[whole[start : start + 11] for start in range(0, len(whole), 11)]) == (whole, trace.counts)


@EACH
def test_cut_short_it_passes_as_far_as_it_came_and_is_not_complete(trace: Trace) -> None:
    whole = trace.bytes
    events = whole.split(b"\n\n")
    short = b"\n\n".join(events[: len(events) // 2]) + b"\n\n"
    reader = trace.format.stream_reader(FormatRequest(body={}, model="m", stream=True), held_tokens=1000)
    assert reader.feed(short) + reader.end() == short
    assert not reader.complete
    assert reader.output_tokens > 0


@pytest.mark.parametrize("trace", [trace for trace in ALL if trace.format is CHAT], ids=lambda trace: trace.name)
def test_usage_that_the_client_did_not_ask_for_is_all_that_is_missing(trace: Trace) -> None:
    whole = trace.bytes
    *events, usage, done, rest = whole.split(b"\n\n")
    assert b'"choices":[]' in usage
    wanted = b"\n\n".join([*(event.replace(b',"usage":null', b"") for event in events), done, rest])
    for place in range(0, len(whole) + 1, 3):
        assert read(trace, whole[:place], whole[place:], wants_usage=False) == (wanted, trace.counts)


@EACH
async def test_it_passes_through_the_running_gateway(
    trace: Trace, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(sse=trace.bytes.decode(), split_bytes=37))
    async with gateway.http(caller) as client:
        model = "fake/claude" if trace.format is MESSAGES else "fake/chat"
        answer = await client.post(trace.path, json={"model": model, "stream": True, **ASK[trace.path]})
    assert answer.content == trace.bytes
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
