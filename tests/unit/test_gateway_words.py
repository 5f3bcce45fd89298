"""Headers and errors in OpenAI's words, and how much of a provider's words may pass."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ButtressError, InternalFault, NotFound, Unavailable
from llm_gateway.limits.ledger import CallTooLarge, LimitExceeded, LimitName, LimitState
from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.providers.rejections import failure_from_answer, read_retry_after
from llm_gateway.wire.errors import error_of_failure
from llm_gateway.wire.headers import usd
from llm_gateway.wire.openai_dialect import OPENAI, duration

STATE = LimitState(limit=60, remaining=0, reset_s=12.5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.2, "2s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (7325.5, "2h2m6s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.integers(0, 10**15))
def test_dollars_are_exact(nano_usd: int) -> None:
    dollars, _, rest = usd(nano_usd).decode().partition(".")
    assert int(dollars) * 10**9 + int(rest) == nano_usd


def test_the_six_limit_headers() -> None:
    headers = dict(OPENAI.limit_headers(LimitState(60, 59, 0.5), LimitState(1000, -3, 0)))
    assert headers == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"500ms",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"0s",
    }


@pytest.mark.parametrize(
    ("name", "kind", "code", "may_retry"),
    [
        ("requests_per_minute", "requests", "rate_limit_exceeded", True),
        ("tokens_per_minute", "tokens", "rate_limit_exceeded", True),
        ("calls_in_flight", "requests", "rate_limit_exceeded", True),
        ("tokens_per_day", "insufficient_quota", "insufficient_quota", False),
        ("nano_usd_per_day", "insufficient_quota", "insufficient_quota", False),
        ("nano_usd_per_month", "insufficient_quota", "insufficient_quota", False),
    ],
)
def test_refusals_of_a_limit(name: LimitName, kind: str, code: str, may_retry: bool) -> None:
    refusal = LimitExceeded(
        "No.", scope="user", limit_name=name, retry_after_s=3.2, state=STATE, requests=None, tokens=STATE
    )
    assert orjson.loads(OPENAI.error_body(refusal, "")) == {
        "error": {"message": "No.", "type": kind, "param": None, "code": code}
    }
    headers = dict(OPENAI.error_headers(refusal))
    assert headers[b"retry-after"] == b"4"
    assert headers[b"x-ratelimit-remaining-tokens"] == b"0"
    assert b"x-ratelimit-limit-requests" not in headers, "there is no such limit"
    assert (b"x-should-retry" not in headers) == may_retry


@pytest.mark.parametrize(
    ("error", "kind", "may_retry"),
    [
        (NotFound("No."), "invalid_request_error", False),
        (CallTooLarge("No.", scope="key", limit_name="tokens_per_minute", state=STATE), "invalid_request_error", False),
        (InternalFault("No."), "server_error", True),
        (Unavailable("No."), "server_error", True),
    ],
)
def test_other_errors(error: ButtressError, kind: str, may_retry: bool) -> None:
    assert orjson.loads(OPENAI.error_body(error, ""))["error"]["type"] == kind
    assert ((b"x-should-retry", b"false") not in OPENAI.error_headers(error)) == may_retry


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_failure_of_a_provider_has_words_and_says_what_was_charged(kind: FailureKind) -> None:
    failure = ProviderFailure(kind, 500)
    error = error_of_failure(failure)
    assert error.message.endswith(".")
    if kind not in {FailureKind.CREDENTIAL, FailureKind.MODEL_MISSING}:
        assert ("Nothing was charged" in error.message) == failure.work_was_refused
    if not failure.work_was_refused:
        assert (b"x-should-retry", b"false") in OPENAI.error_headers(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, FailureKind.BROKEN),
        (400, FailureKind.REJECTED),
        (401, FailureKind.CREDENTIAL),
        (402, FailureKind.CREDENTIAL),
        (403, FailureKind.CREDENTIAL),
        (404, FailureKind.MODEL_MISSING),
        (413, FailureKind.REJECTED),
        (418, FailureKind.REJECTED),
        (422, FailureKind.REJECTED),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.BROKEN),
        (502, FailureKind.BROKEN),
        (503, FailureKind.OVERLOADED),
        (529, FailureKind.OVERLOADED),
        (599, FailureKind.BROKEN),
    ],
)
def test_a_providers_status_has_one_meaning(status: int, kind: FailureKind) -> None:
    assert failure_from_answer(status, {}, b"", sent={}).kind is kind


SENT = {"messages": [], "temperature": 1}


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        ({"code": "context_length_exceeded", "param": "messages"}, "context_length_exceeded", "messages"),
        (
            {"code": "invalid_value", "param": "messages[0].content[1].type"},
            "invalid_value",
            "messages[0].content[1].type",
        ),
        ({"code": "sk-live-secret", "param": "sk-live-secret"}, None, None),
        ({"code": "org_canary", "param": "messages.sk1234"}, None, None),
        ({"code": 7, "param": ["messages"]}, None, None),
        ({"code": "invalid_value", "param": "messages" + "[0]" * 100}, "invalid_value", None),
        ({"code": "invalid_value", "param": "top_p"}, "invalid_value", None),
        ("text", None, None),
    ],
)
def test_of_a_rejection_only_known_words_pass(error: object, code: str | None, param: str | None) -> None:
    raw = orjson.dumps({"error": error, "message": "canary"})
    failure = failure_from_answer(400, {}, raw, sent=SENT)
    assert (failure.code, failure.param) == (code, param)
    shown = orjson.loads(OPENAI.error_body(error_of_failure(failure), ""))["error"]
    assert shown["code"] == (code or "invalid_request")
    assert shown["param"] == param


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("2", 2),
        ("0.5", 0.5),
        ("-1", 0),
        ("1e9", 3600),
    ],
)
def test_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert read_retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = read_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True))
    assert seconds is not None
    assert 500 < seconds <= 600
