"""OpenAI's answers on their way back: bytes unchanged, usage read, nothing shown that was not asked for."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.accounting import TokenCounts
from llm_gateway.wire.answer_stream import estimate_output_tokens
from llm_gateway.wire.format import AnswerUnusable, StreamFault, WholeAnswer
from llm_gateway.wire.openai_answer import ChatStream, read_completion
from llm_gateway.wire.openai_usage import read_usage
from tests.unit.test_gateway_sse import cut

Json = dict[str, Any]  # chunks are JSON of many shapes
USAGE: Json = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}


def chunk(content: str | None = None, **fields: object) -> Json:
    delta = {} if content is None else {"content": content}
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **fields}


def event(body: Json) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


FINISH = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
DONE = b"data: [DONE]\n\n"


def run(stream: ChatStream, *pieces: bytes) -> bytes:
    return b"".join([*(stream.feed(piece) for piece in pieces), stream.end()])


@given(st.lists(st.text(max_size=12), max_size=8), st.data())
def test_the_bytes_that_go_out_are_the_bytes_that_came_minus_the_usage_nobody_asked_for(
    texts: list[str], data: st.DataObject
) -> None:
    plain = [event(chunk(text)) for text in texts]
    asked = [event(chunk(text, usage=None)) for text in texts]
    came = b"".join([*asked, event(FINISH), event({"id": "c", "choices": [], "usage": USAGE}), DONE])
    stream = ChatStream(hide_usage=True, held_tokens=100)
    assert run(stream, *data.draw(cut(came))) == b"".join([*plain, event(FINISH), DONE])
    assert stream.counts == TokenCounts(input=4, cached_input=5, output=4)
    assert stream.complete


@given(st.lists(st.text(max_size=12), max_size=8), st.data())
def test_a_client_that_asked_for_usage_gets_every_byte(texts: list[str], data: st.DataObject) -> None:
    events = [*(event(chunk(text, usage=None)) for text in texts), event({"choices": [], "usage": USAGE}), DONE]
    came = b": a comment\n\n" + b"".join(events)
    stream = ChatStream(hide_usage=False, held_tokens=100)
    assert run(stream, *data.draw(cut(came))) == came
    assert stream.counts == TokenCounts(input=4, cached_input=5, output=4)


@pytest.mark.parametrize(
    "later", [{"prompt_tokens": 0, "completion_tokens": 0}, {**USAGE, "completion_tokens": 1}, None]
)
def test_figures_that_the_provider_takes_back_stand(later: Json | None) -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    run(stream, event(FINISH | {"usage": USAGE}), event({"choices": [], "usage": later}), DONE)
    assert stream.counts == TokenCounts(input=4, cached_input=5, output=4)
    run(stream, event({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 3}}))
    assert stream.counts == TokenCounts(input=20, output=4)


def test_a_chunk_larger_than_all_that_was_held_is_charged_as_all_that_was_held() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=30)
    assert run(stream, event(chunk("x" * 5000))) == b""
    assert (stream.fault, stream.output_tokens) == (StreamFault.TOO_MUCH, 30)


def test_text_that_looks_like_usage_stays() -> None:
    came = event(chunk('say ,"usage":null and , "usage": null', usage=None))
    passed = run(ChatStream(hide_usage=True, held_tokens=100), came)
    assert orjson.loads(passed[6:]) == chunk('say ,"usage":null and , "usage": null')


def test_usage_beside_the_last_words_is_hidden_and_the_words_stay() -> None:
    passed = run(ChatStream(hide_usage=True, held_tokens=100), event(chunk("bye", usage=USAGE)))
    assert orjson.loads(passed[6:]) == chunk("bye")


def test_chunks_are_counted_as_tokens() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    run(stream, event(chunk("")), event(chunk("one")), event(chunk(" two")))
    assert (stream.output_tokens, stream.complete) == (2, False)


def delta(**fields: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"role": "assistant", **fields}}]})


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"something_of_tomorrow": {"id": "x" * 99, "words": ["y" * 20, {"more": "z" * 10}]}}, 10),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "y" * 30, "signature": "s" * 99}]}, 10),
        # one and the same thought, as OpenRouter and vLLM send it
        ({"reasoning": "y" * 30, "reasoning_content": "y" * 30, "reasoning_details": [{"text": "y" * 30}]}, 10),
        ({"tool_calls": [{"id": "x" * 99, "function": {"name": "f" * 6, "arguments": ""}}]}, 10),
        ({"tool_calls": [{"id": "x", "custom": {"input": "y" * 30}}, {"id": "x", "new": "y" * 30}]}, 20),
        ({"function_call": {"name": "f", "arguments": "y" * 30}}, 19),
        ({"annotations": [{"url_citation": {"title": "t" * 99}}]}, 0),
        # nobody can read the number of tokens off a sound or a picture: all that was held
        ({"audio": {"id": "a", "data": "AAAA", "transcript": "hi"}}, 100),
        ({"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}, 100),
        ({"audio": None, "images": []}, 0),
    ],
)
def test_what_stands_in_any_field_is_output_where_nobody_reports_usage(fields: Json, tokens: int) -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    came = delta(**fields)
    assert run(stream, came) == came
    assert (stream.output_tokens, stream.fault) == (tokens, None)


def test_what_no_format_names_never_cuts_a_stream_and_never_costs_more_than_was_held() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=10)
    came = delta(content="Hi", sealed="x" * 100_000)
    assert run(stream, came) == came
    assert (stream.output_tokens, stream.fault) == (10, None)


def test_chunks_whose_probabilities_are_listed_have_as_many_tokens() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    listed = {"content": [{"token": "a"}, {"token": "b"}], "refusal": [{"token": "c"}]}
    run(stream, event({"choices": [{"index": 0, "delta": {"content": "ab"}, "logprobs": listed}]}))
    run(stream, event({"choices": [{"index": 0, "delta": {"content": "d"}, "logprobs": {"content": None}}]}))
    assert stream.output_tokens == 4


def test_reasoning_and_arguments_of_tools_are_output_too() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    call = {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}
    opening = {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]}
    for delta in ({"reasoning_content": "hm"}, opening, call):
        stream.feed(event({"choices": [{"index": 0, "delta": delta}]}))
    assert stream.chunks == 2


def test_not_one_chunk_more_than_was_held_is_passed_on() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=2)
    passed = stream.feed(b"".join(event(chunk(str(number))) for number in range(5)))
    assert passed == event(chunk("0")) + event(chunk("1"))
    assert (stream.fault, stream.output_tokens) == (StreamFault.TOO_MUCH, 2)


def test_few_chunks_with_more_text_than_was_held_are_not_passed_on() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=2)
    assert stream.feed(event(chunk("x" * 10_000))) == b""
    assert stream.fault is StreamFault.TOO_MUCH


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"data: {nonsense\n\n", StreamFault.MALFORMED),
        (b"data: 7\n\n", StreamFault.MALFORMED),
        (b'data: {"error": {"message": "the key sk-secret is bad"}}\n\n', StreamFault.PROVIDER_ERROR),
    ],
)
def test_what_cannot_be_passed_on_is_not_and_what_came_before_is(raw: bytes, fault: StreamFault) -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    assert stream.feed(event(chunk("good")) + raw + event(chunk("never"))) == event(chunk("good"))
    assert stream.fault is fault
    assert not stream.complete


def test_an_event_too_large_to_hold_is_a_fault() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    assert stream.feed(b"data: " + b"x" * (5 * 1024 * 1024)) == b""
    assert stream.fault is StreamFault.MALFORMED


def test_a_last_event_without_its_empty_line_still_counts() -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    assert run(stream, event(chunk("a")), b"data: [DONE]\n") == event(chunk("a")) + b"data: [DONE]\n"
    assert stream.complete


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 10**15, "completion_tokens": 1},
    ],
)
def test_nonsense_is_no_usage(raw: object) -> None:
    assert read_usage(raw) is None


def test_cached_tokens_are_at_most_the_prompt() -> None:
    assert read_usage({**USAGE, "prompt_tokens_details": {"cached_tokens": 99}}) == TokenCounts(
        cached_input=9, output=4
    )


def test_every_class_of_tokens_is_counted_once() -> None:
    raw = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {
            "cached_tokens": 400,
            "audio_tokens": 50,
            "cache_creation_tokens": 300,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        },
        "completion_tokens_details": {"reasoning_tokens": 60, "audio_tokens": 40, "rejected_prediction_tokens": 7},
    }
    counts = TokenCounts(
        input=250,
        cached_input=400,
        cache_write_5m=100,
        cache_write_1h=200,
        input_audio=50,
        output=400,
        reasoning=60,
        output_audio=40,
    )
    assert read_usage(raw) == counts
    assert (counts.prompt_tokens, counts.output_tokens, counts.total) == (1000, 500, 1500)


def test_reasoning_that_only_the_total_contains_was_written_too() -> None:
    xai = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35}
    assert read_usage(xai) == TokenCounts(input=10, output=5, reasoning=20)
    named = {**xai, "completion_tokens_details": {"reasoning_tokens": 20}}
    assert read_usage(named) == TokenCounts(input=10, output=5, reasoning=20)


def test_cache_reads_and_writes_are_found_under_every_name() -> None:
    base = {"prompt_tokens": 10, "completion_tokens": 1}
    deepseek = {**base, "prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4}
    assert read_usage(deepseek) == TokenCounts(input=4, cached_input=6, output=1)
    openrouter = {**base, "prompt_tokens_details": {"cache_write_tokens": 7, "cached_tokens": 3}}
    assert read_usage(openrouter) == TokenCounts(cached_input=3, cache_write_5m=7, output=1)
    assert read_usage({**base, "cache_creation_input_tokens": 7}) == TokenCounts(input=3, cache_write_5m=7, output=1)


def test_who_counts_as_anthropic_does_leaves_the_cache_out_of_the_prompt() -> None:
    """litellm did so for a year: github.com/BerriAI/litellm/issues/15056."""
    raw = {"prompt_tokens": 31, "completion_tokens": 467, "total_tokens": 498, "cache_creation_input_tokens": 1253}
    assert read_usage(raw) == TokenCounts(input=31, cache_write_5m=1253, output=467)
    read = {**raw, "cache_read_input_tokens": 2000}
    assert read_usage(read) == TokenCounts(input=31, cache_write_5m=1253, cached_input=2000, output=467)


def test_parts_are_never_more_than_the_whole() -> None:
    raw = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "prompt_tokens_details": {"audio_tokens": 8, "cached_tokens": 8},
        "completion_tokens_details": {"audio_tokens": 3, "reasoning_tokens": 3},
    }
    assert read_usage(raw) == TokenCounts(input_audio=8, cached_input=2, output_audio=3, reasoning=1)


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": {}}'])
def test_what_is_no_completion_cannot_be_used(raw: bytes) -> None:
    with pytest.raises(AnswerUnusable):
        read_completion(raw)


def test_a_completion_without_usage_gives_the_bytes_of_its_text() -> None:
    body = {"choices": [{"message": {"content": "naïve"}}, {"message": {"content": "x"}}, "odd"]}
    assert read_completion(orjson.dumps(body)) == WholeAnswer(None, 7)
    spoken = {"choices": [{"message": {"content": None, "audio": {"data": "AAAA", "transcript": "hi"}}}]}
    assert read_completion(orjson.dumps(spoken)) == WholeAnswer(None, 2, has_media=True)


def test_long_chunks_are_counted_by_their_bytes() -> None:
    assert estimate_output_tokens(chunks=10, text_bytes=40) == 10
    assert estimate_output_tokens(chunks=10, text_bytes=81) == 27
    assert estimate_output_tokens(chunks=2, text_bytes=401) == 134
    assert estimate_output_tokens(chunks=0, text_bytes=0) == 0
