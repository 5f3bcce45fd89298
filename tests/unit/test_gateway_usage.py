"""What a call is charged, however it ended: exactly what was reported, else a fair estimate, never nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import orjson
import pytest

from llm_gateway import usage
from llm_gateway.accounting import TokenCounts
from llm_gateway.catalog import PublicModel
from llm_gateway.limits.estimate import Estimate
from llm_gateway.plan import Hop
from llm_gateway.wire.answer_stream import AnswerStream
from llm_gateway.wire.anthropic_answer import MessageStream, read_message
from llm_gateway.wire.format import WholeAnswer
from llm_gateway.wire.openai_answer import ChatStream, read_completion
from llm_gateway.wire.openai_responses_answer import ResponsesStream, read_response
from tests.support.catalogs import catalog_of

Stream = TypeVar("Stream", bound=AnswerStream)
ESTIMATE = Estimate(prompt_tokens=900, max_output_tokens=100, choices=1, fixed_tokens=100, text_bytes=800)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PublicModel:
    return catalog_of(
        tmp_path_factory.mktemp("catalog"),
        """
[[models]]
name = "a"
context_window = 100_000
max_output_tokens = 1000
[[models.deployments]]
base_url = "http://x/v1"
model = "m"
unasked_service_tier = "priority"
price_usd_per_million_tokens = { input = 1, cache_write_5m = 1.5, cache_write_1h = 2, input_audio = 10, output = 2 }
price_tiers_usd_per_million_tokens = [
    { service_tier = "priority", input = 3, output = 6 },
    { service_tier = "flex", input = 0.5, output = 1 },
]
""",
    ).find("a")


def hop(model: PublicModel, estimate: Estimate = ESTIMATE) -> Hop:
    return Hop(model, model.deployments[0], estimate)


def fed(stream: Stream, *events: object) -> Stream:
    for event in events:
        stream.feed(b"data: " + orjson.dumps(event) + b"\n\n")
    return stream


def test_the_service_that_was_given_decides(model: PublicModel) -> None:
    counts = TokenCounts(input=100, output=10)
    costs = [usage.reported(hop(model), counts, service).cost_nano_usd for service in ("default", "priority", "flex")]
    assert costs == [120_000, 360_000, 60_000]


@pytest.mark.parametrize(
    ("asked", "counts", "hour"),
    [
        (["cache_write_1h"], TokenCounts(cache_write_5m=7), 7),
        (["cache_write_1h"], TokenCounts(cache_write_5m=7, cache_write_1h=1), 1),
        (["cache_write_1h", "cache_write_5m"], TokenCounts(cache_write_5m=7), 0),
        (["cache_write_5m"], TokenCounts(cache_write_5m=7), 0),
        ([], TokenCounts(cache_write_5m=7), 0),
        (["cache_write_1h"], TokenCounts(input=7), 0),
    ],
)
def test_what_was_written_for_an_hour_costs_an_hour_where_the_answer_does_not_say(
    model: PublicModel, asked: list[str], counts: TokenCounts, hour: int
) -> None:
    estimate = replace(ESTIMATE, classes=tuple((name, "x") for name in asked))
    used = usage.reported(hop(model, estimate), counts, "default")
    assert used.counts.cache_write_1h == hour
    assert used.counts.total == counts.total


def test_who_does_not_say_which_service_may_have_given_the_dearest(model: PublicModel) -> None:
    counts = TokenCounts(input=100, output=10)
    assert usage.reported(hop(model), counts).cost_nano_usd == 360_000  # priority, if the account is set to it
    asked = replace(ESTIMATE, service="flex")
    assert usage.reported(hop(model, asked), counts, "flex").cost_nano_usd == 60_000


def test_what_has_no_rate_is_charged_at_the_dearest_one_and_marked(model: PublicModel) -> None:
    used = usage.reported(hop(model), TokenCounts(output_audio=10), "default")
    assert (used.cost_nano_usd, used.estimated) == (100_000, True)
    assert usage.reported(hop(model), TokenCounts(input=10), "brand-new").estimated
    assert not usage.reported(hop(model), TokenCounts(input=10), "default").estimated


@pytest.mark.parametrize(
    ("estimate", "prompt_tokens"),
    [
        (ESTIMATE, 300),  # a third of the bytes
        (replace(ESTIMATE, text_bytes=0), 900),  # counted
        (replace(ESTIMATE, fixed_tokens=0, text_bytes=0), 300),
        (Estimate(0, 0, 1), 1),
    ],
)
def test_a_prompt_that_nobody_reported_is_estimated(model: PublicModel, estimate: Estimate, prompt_tokens: int) -> None:
    used = usage.answered(hop(model, replace(estimate, max_output_tokens=100)), WholeAnswer(None, 33))
    assert (used.counts.prompt_tokens, used.counts.output, used.estimated) == (prompt_tokens, 11, True)


@pytest.mark.parametrize(
    ("answer", "counts", "estimated"),
    [
        (WholeAnswer(TokenCounts(input=50, output=7), 3000), TokenCounts(input=50, output=7), False),
        (WholeAnswer(None, 3000), TokenCounts(input=300, output=100), True),  # at most what it was told to write
        (WholeAnswer(None, 3, has_media=True), TokenCounts(input=300, output=100), True),
        # half a figure is none for the other half
        (WholeAnswer(TokenCounts(output=7), 3000), TokenCounts(input=300, output=7), True),
        (WholeAnswer(TokenCounts(input=50), 30), TokenCounts(input=50, output=10), True),
        (WholeAnswer(TokenCounts(input=50), 0), TokenCounts(input=50), False),
        (WholeAnswer(TokenCounts(), 0), TokenCounts(), False),  # it says that nothing was done
    ],
)
def test_what_a_whole_answer_does_not_say_is_estimated(
    model: PublicModel, answer: WholeAnswer, counts: TokenCounts, estimated: bool
) -> None:
    used = usage.answered(hop(model), answer)
    assert (used.counts, used.estimated, used.outcome) == (counts, estimated, "ok")


def test_sound_that_nobody_reported_is_estimated(model: PublicModel) -> None:
    heard = replace(ESTIMATE, audio_tokens=300, classes=(("input_audio", "x"),))
    assert usage.answered(hop(model, heard), WholeAnswer(None, 0)).counts.input_audio == 100
    worst = usage.worst_case(hop(model, heard), outcome="unknown")
    assert worst.counts == TokenCounts(input=900, input_audio=300, output=100)
    # every rate of priority is three times the ordinary one, also where only input and output were said
    assert worst.cost_nano_usd == hop(model, heard).most_nano_usd == 900 * 3000 + 300 * 30_000 + 100 * 6000


def chat_stream() -> ChatStream:
    return ChatStream(hide_usage=True, held_tokens=100)


def test_a_complete_stream_costs_what_it_reported_in_the_service_that_it_named(model: PublicModel) -> None:
    stream = fed(
        chat_stream(),
        {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}], "service_tier": "flex"},
        {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}, "service_tier": None},
    )
    used = usage.streamed(hop(model), stream, outcome="ok")
    assert (used.cost_nano_usd, used.estimated) == (60_000, False)


def test_a_cut_stream_costs_its_prompt_and_what_came(model: PublicModel) -> None:
    piece = {"choices": [{"delta": {"content": "hi"}}], "service_tier": "default"}
    used = usage.streamed(hop(model), fed(chat_stream(), piece, piece, piece), outcome="client_gone")
    assert used.counts == TokenCounts(input=300, output=3)
    assert (used.cost_nano_usd, used.estimated, used.outcome) == (306_000, True, "client_gone")


def test_a_cut_message_costs_the_prompt_that_it_reported_at_first(model: PublicModel) -> None:
    start = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 50, "output_tokens": 1, "service_tier": "priority"}},
    }
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "word "}}
    used = usage.streamed(hop(model), fed(MessageStream(held_tokens=100), start, delta, delta, delta), outcome="cut")
    assert used.counts == TokenCounts(input=50, output=3)
    assert used.cost_nano_usd == 50 * 3000 + 3 * 6000


def test_what_the_provider_said_beside_a_cut_stream_is_believed(model: PublicModel) -> None:
    piece = {"choices": [{"delta": {"content": "hi"}}], "service_tier": "default"}
    told = TokenCounts(input=40, cached_input=10, output=1)
    used = usage.streamed(hop(model), fed(chat_stream(), piece, piece, piece), outcome="client_gone", told=told)
    assert (used.counts, used.estimated) == (TokenCounts(input=40, cached_input=10, output=3), True)
    ended = fed(chat_stream(), {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]})
    used = usage.streamed(hop(model), ended, outcome="ok", told=told)
    assert (used.counts, used.estimated) == (TokenCounts(input=40, cached_input=10, output=1), True)


def test_a_response_names_its_service_at_its_end(model: PublicModel) -> None:
    done = {
        "type": "response.completed",
        "response": {"output": [], "service_tier": "flex", "usage": {"input_tokens": 100, "output_tokens": 10}},
    }
    used = usage.streamed(hop(model), fed(ResponsesStream(held_tokens=100), done), outcome="ok")
    assert (used.cost_nano_usd, used.estimated) == (60_000, False)


def test_whole_answers_name_their_service() -> None:
    chat = {"choices": [{"message": {"content": "x"}}], "service_tier": "flex"}
    assert read_completion(orjson.dumps(chat)).service == "flex"
    assert read_completion(orjson.dumps(chat | {"service_tier": 5})).service is None
    message = {
        "type": "message",
        "content": [],
        "usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "batch"},
    }
    assert read_message(orjson.dumps(message)).service == "batch"
    assert read_message(orjson.dumps(message | {"usage": None})).service is None
    assert read_response(orjson.dumps({"output": [], "service_tier": "priority"})).service == "priority"


@pytest.mark.parametrize("counts", [TokenCounts(input=10**9), TokenCounts(output=10**9), TokenCounts(input=108_001)])
def test_what_no_call_of_its_size_can_have_used_is_charged_as_all_that_was_held(
    model: PublicModel, counts: TokenCounts
) -> None:
    used = usage.reported(hop(model), counts)
    assert (used.counts.total, used.cost_nano_usd, used.estimated) == (1000, hop(model).most_nano_usd, True)


def test_more_than_was_held_is_believed_within_reason(model: PublicModel) -> None:
    used = usage.reported(hop(model), TokenCounts(input=50_000, output=58_000))
    assert (used.counts.total, used.estimated) == (108_000, False)
