"""Rules are asked in their order, within their time; one that fails stops the call unless it only observes."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest

from llm_gateway.caller import Caller, Policy
from llm_gateway.content.hooks import (
    About,
    AnswerWithheld,
    Body,
    ContentDenied,
    ContentHook,
    ContentRuleFailed,
    StreamFilter,
)
from llm_gateway.content.redactor import AnswerRedactor, RequestRedactor
from llm_gateway.content.rules import CallRules, ContentRules, HookInvalid, load_hooks
from llm_gateway.metrics import Metrics
from llm_gateway.wire.errors import retry_may_help

METRICS = Metrics(models=[], deployments=[], endpoints=["chat"])


def about(policy: Policy | None = None, *, stream: bool = False) -> About:
    caller = Caller(UUID(int=1), policy=policy or Policy())
    return About(call_id="req_1", caller=caller, endpoint="chat", model="a/model", stream=stream)


def rules(*hooks: ContentHook, metrics: Metrics = METRICS, policy: Policy | None = None) -> CallRules:
    return ContentRules(hooks, metrics).about(about(policy))


class Appends(ContentHook):
    name = "appends"

    def __init__(self, letter: str) -> None:
        self.letter = letter

    async def before(self, about: About, body: Body) -> Body | None:
        return {**body, "text": body["text"] + self.letter}

    async def after(self, about: About, answer: Body) -> Body | None:
        return {**answer, "text": answer["text"] + self.letter}

    def stream(self, about: About) -> StreamFilter | None:
        return Appending(self.letter.encode())


class Appending:
    def __init__(self, letter: bytes) -> None:
        self.letter = letter

    def feed(self, piece: bytes) -> bytes:
        return piece + self.letter

    def end(self) -> bytes:
        return b"end" + self.letter


class Denies(ContentHook):
    name = "denies"

    async def before(self, about: About, body: Body) -> Body | None:
        raise ContentDenied("Not here.")

    async def after(self, about: About, answer: Body) -> Body | None:
        raise ContentDenied


class Breaks(ContentHook):
    name = "breaks"

    async def before(self, about: About, body: Body) -> Body | None:
        raise KeyError("a stranger's fault")

    async def after(self, about: About, answer: Body) -> Body | None:
        raise KeyError

    def stream(self, about: About) -> StreamFilter | None:
        return Breaking()


class Breaking:
    def feed(self, piece: bytes) -> bytes:
        raise KeyError

    def end(self) -> bytes:
        return b""


class BrokenObserver(Breaks):
    name = "broken_observer"
    required = False


class Late(ContentHook):
    name = "late"
    deadline_s = 0.01

    async def before(self, about: About, body: Body) -> Body | None:
        await asyncio.Event().wait()
        return None


class Clings(Late):
    """Does not end when it is told to."""

    name = "clings"

    async def before(self, about: About, body: Body) -> Body | None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        return None


class Cancels(ContentHook):
    """Ends itself as if its caller had left."""

    name = "cancels"

    async def before(self, about: About, body: Body) -> Body | None:
        raise asyncio.CancelledError


class Wrong(ContentHook):
    name = "wrong"

    async def before(self, about: About, body: Body) -> Body | None:
        return ["a list"]  # type: ignore[return-value]  # a stranger's fault


class NoCoroutine(ContentHook):
    name = "no_coroutine"

    def before(self, about: About, body: Body) -> Body | None:  # type: ignore[override]  # a stranger's fault
        return body


class CannotSay(ContentHook):
    name = "cannot_say"

    def applies(self, about: About) -> bool:
        raise KeyError("a stranger's fault")


class ObserverThatCannotSay(CannotSay):
    name = "observer_that_cannot_say"
    required = False


class HasNoFilter(ContentHook):
    name = "has_no_filter"

    def stream(self, about: About) -> StreamFilter | None:
        raise KeyError("a stranger's fault")


class ObserverWithoutFilter(HasNoFilter):
    name = "observer_without_filter"
    required = False


class LateObserver(Late):
    name = "late_observer"
    required = False


async def test_hooks_are_asked_in_their_order() -> None:
    both = rules(Appends("a"), Appends("b"))
    assert await both.request({"text": ""}) == {"text": "ab"}
    assert json.loads(await both.answer(b'{"text": ""}')) == {"text": "ab"}
    assert both.feed(b"x") == b"xab"
    assert both.end() == b"endabendb"


async def test_without_hooks_bytes_pass_as_they_are() -> None:
    raw = b'{ "odd":   "spacing" }'
    assert await rules().answer(raw) is raw
    assert await rules(ContentHook()).answer(raw) is raw
    assert rules().feed(raw) is raw
    assert rules().end() == b""


async def test_a_denial_ends_it_with_the_rules_own_sentence_and_is_counted() -> None:
    metrics = Metrics(models=[], deployments=[], endpoints=["chat"])
    with pytest.raises(ContentDenied, match=r"content_denied: Not here\."):
        await rules(Denies(), Breaks(), metrics=metrics).request({})
    assert 'buttress_llm_denials_total{rule="denies"} 1.0' in metrics.render().decode()


@pytest.mark.parametrize("hook", [Breaks(), Late(), Clings(), Cancels(), Wrong(), NoCoroutine()], ids=lambda h: h.name)
async def test_a_hook_that_fails_or_is_late_stops_the_call_before_it_is_made(hook: ContentHook) -> None:
    with pytest.raises(ContentRuleFailed) as stopped:
        await rules(hook).request({})
    assert (stopped.value.code, stopped.value.status) == ("content_rule_failed", 503)


async def test_a_hook_that_fails_at_the_answer_withholds_it() -> None:
    with pytest.raises(AnswerWithheld) as withheld:
        await rules(Breaks()).answer(b"{}")
    assert not retry_may_help(withheld.value)
    with pytest.raises(AnswerWithheld):
        rules(Breaks()).feed(b"x")
    without_filter = rules(HasNoFilter())
    for _ in range(2):
        with pytest.raises(AnswerWithheld):
            without_filter.feed(b"x")


async def test_an_answer_that_cannot_be_read_is_withheld_from_whoever_has_rules() -> None:
    with pytest.raises(AnswerWithheld):
        await rules(Appends("a")).answer(b"{")


def test_a_hook_that_cannot_say_whether_it_applies_stops_the_call() -> None:
    with pytest.raises(ContentRuleFailed):
        rules(CannotSay())
    assert not rules(ObserverThatCannotSay())


async def test_a_failure_is_logged_once_without_the_words_of_the_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ContentRuleFailed):
        await rules(Breaks()).request({})
    [line] = capfd.readouterr().out.splitlines()
    assert "content_rule_failed" in line
    assert "KeyError" in line
    assert "test_content_rules.py" in line
    assert "stranger" not in line


async def test_an_observer_that_fails_or_is_late_changes_nothing() -> None:
    body = {"text": "x"}
    assert await rules(BrokenObserver(), LateObserver()).request(body) is body
    raw = b'{"text": "x"}'
    assert await rules(BrokenObserver()).answer(raw) is raw
    streamed = rules(BrokenObserver(), ObserverWithoutFilter(), Appends("a"))
    assert streamed.feed(b"x") + streamed.feed(b"y") + streamed.end() == b"xayaenda"


async def test_a_cancelled_call_is_no_failure_of_the_rule() -> None:
    task = asyncio.ensure_future(rules(Late()).request({}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_redactor_works_for_those_who_turned_it_on_and_for_nobody_else() -> None:
    body = {"messages": [{"role": "user", "content": "jane@example.com"}]}
    raw = json.dumps(body).encode()
    hooks = RequestRedactor(METRICS), AnswerRedactor(METRICS)
    off, requests = rules(*hooks), rules(*hooks, policy=Policy(redact=True))
    both = rules(*hooks, policy=Policy(redact=True, redact_answers=True))
    assert await off.request(body) is body
    assert (await requests.request(body))["messages"][0]["content"] == "[EMAIL]"
    assert b"jane" in await requests.answer(raw)
    assert b"jane" not in await both.answer(raw)


async def test_a_long_piece_of_a_stream_gives_what_it_gives_at_once() -> None:
    piece = b'data: {"choices": [{"index": 0, "delta": {"content": "%s jane@example.com "}}]}\n\n' % (b"word " * 4000)
    policy = Policy(redact_answers=True)

    def both() -> CallRules:
        return rules(Appends("a"), AnswerRedactor(METRICS), BrokenObserver(), policy=policy)

    assert await both().feed_long(piece) == both().feed(piece)
    assert b"jane" not in both().feed(piece)
    with pytest.raises(AnswerWithheld):
        await rules(Breaks()).feed_long(piece)
    with pytest.raises(AnswerWithheld):
        await rules(AnswerRedactor(METRICS), policy=policy).feed_long(b"data: {nonsense\n\n")
    assert await rules().feed_long(piece) is piece


async def test_long_texts_are_redacted_beside_the_event_loop() -> None:
    body = {"input": ["x " * 50_000 + "jane@example.com"]}
    seen = await rules(RequestRedactor(METRICS), policy=Policy(redact=True)).request(body)
    assert seen["input"][0].endswith("[EMAIL]")


def test_hooks_are_loaded_by_their_names() -> None:
    [hook] = load_hooks(["tests.unit.test_content_rules:Denies"])
    assert hook.name == "denies"
    for wrong in ("no.such.module:X", "json:dumps", "json:JSONDecoder", "json", "json:nothing"):
        with pytest.raises(HookInvalid, match="BUTTRESS_CONTENT_HOOKS"):
            load_hooks([wrong])
