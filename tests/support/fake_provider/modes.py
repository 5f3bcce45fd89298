"""Behaviour chosen by the model's name, for use by hand: `fake/error-429`, `fake/cut-3`, `fake/slow-500ms`."""

import re
from collections.abc import Callable

from tests.support.fake_provider.steps import Step

UTF8_TEXT = "Grüße, 世界! Ein Gruß aus Zürich 🙂 mit Ümläuten und 漢字."


def _seconds(amount: str, unit: str) -> float:
    return float(amount) / (1000 if unit == "ms" else 1)


# Name (with N and T as parameters), what it does, pattern, how its step is made.
_MODES: tuple[tuple[str, str, str, Callable[..., Step]], ...] = (
    ("echo", "says the last user message back", r"echo", lambda: Step(echo_prompt=True)),
    ("tokens-N", "says N words", r"tokens-(\d+)", lambda n: Step(output_tokens=int(n))),
    (
        "slow-T",
        "waits T (500ms, 2s) before the headers",
        r"slow-(\d+)(ms|s)",
        lambda n, unit: Step(delay_before_headers_s=_seconds(n, unit)),
    ),
    (
        "slow-first-token-T",
        "waits T after the headers",
        r"slow-first-token-(\d+)(ms|s)",
        lambda n, unit: Step(delay_before_first_chunk_s=_seconds(n, unit)),
    ),
    (
        "slow-chunks-T",
        "waits T between 20 chunks",
        r"slow-chunks-(\d+)(ms|s)",
        lambda n, unit: Step(output_tokens=20, delay_between_chunks_s=_seconds(n, unit)),
    ),
    (
        "slow-headers-T",
        "the head of the answer trickles in during T",
        r"slow-headers-(\d+)(ms|s)",
        lambda n, unit: Step(slow_headers_s=_seconds(n, unit)),
    ),
    (
        "error-429-after-Ns",
        "refuses with 429 and Retry-After: N",
        r"error-429-after-(\d+)s",
        lambda n: Step(status=429, retry_after_s=float(n)),
    ),
    (
        "error-N",
        "refuses with status N (400, 401, 403, 404, 429, 500, 503, 529)",
        r"error-([45]\d\d)",
        lambda n: Step(status=int(n), retry_after_s=2.0 if n == "429" else None),
    ),
    (
        "echo-authorization",
        "refuses with 401 and shows the key it was sent",
        r"echo-authorization",
        lambda: Step(status=401, echoes_authorization=True),
    ),
    ("reset", "resets the connection before an answer", r"reset", lambda: Step(connection="reset")),
    ("close", "closes the connection before an answer", r"close", lambda: Step(connection="close")),
    ("hang", "never answers", r"hang", lambda: Step(connection="never_answer")),
    (
        "cut-N",
        "closes the connection after N chunks",
        r"cut-(\d+)",
        lambda n: Step(output_tokens=int(n) + 10, cut_after_chunks=int(n)),
    ),
    (
        "reset-N",
        "resets the connection after N chunks",
        r"reset-(\d+)",
        lambda n: Step(output_tokens=int(n) + 10, cut_after_chunks=int(n), cut="reset"),
    ),
    (
        "end-N",
        "ends the answer after N chunks, without finish reason and [DONE]",
        r"end-(\d+)",
        lambda n: Step(output_tokens=int(n) + 10, cut_after_chunks=int(n), cut="end"),
    ),
    (
        "error-event-N",
        "sends an error event after N chunks",
        r"error-event-(\d+)",
        lambda n: Step(output_tokens=int(n) + 10, error_after_chunks=int(n)),
    ),
    ("malformed-json", "answers with what is not JSON", r"malformed-json", lambda: Step(body="malformed_json")),
    ("half-json", "answers with the first half of the JSON", r"half-json", lambda: Step(body="half_json")),
    ("cut-json", "closes the connection within the JSON", r"cut-json", lambda: Step(body="cut_json")),
    ("wrong-content-type", "answers with an HTML page", r"wrong-content-type", lambda: Step(body="wrong_content_type")),
    ("empty-body", "answers 200 with nothing", r"empty-body", lambda: Step(body="empty")),
    ("empty-choices", "answers without a choice", r"empty-choices", lambda: Step(body="empty_choices")),
    ("no-usage", "leaves the usage out", r"no-usage", lambda: Step(usage="missing")),
    ("null-usage", "reports the usage as null", r"null-usage", lambda: Step(usage="null")),
    ("usage-every-chunk", "reports usage in every chunk", r"usage-every-chunk", lambda: Step(usage="every_chunk")),
    (
        "endless",
        "streams until the client leaves",
        r"endless",
        lambda: Step(endless=True, delay_between_chunks_s=0.001),
    ),
    ("huge-chunks", "every chunk has a mebibyte", r"huge-chunks", lambda: Step(padding_bytes=1 << 20)),
    (
        "split-N",
        "the stream arrives in pieces of N bytes, in the middle of characters too",
        r"split-(\d+)",
        lambda n: Step(text=UTF8_TEXT, split_bytes=int(n)),
    ),
    ("comments", "keep-alive comments between the events", r"comments", lambda: Step(keep_alive_comments=True)),
    ("double-done", "sends [DONE] twice", r"double-done", lambda: Step(done_events=2)),
    ("no-done", "leaves [DONE] out", r"no-done", lambda: Step(done_events=0)),
    ("tool-call", "calls the first tool of the request", r"tool-call", lambda: Step(call_first_tool=True)),
    ("length", "stops at its maximum of tokens", r"length", lambda: Step(finish_reason="length")),
    (
        "too-much",
        "says 500 words whatever max_tokens is",
        r"too-much",
        lambda: Step(output_tokens=500, ignores_max_tokens=True),
    ),
    ("reasoning", "thinks before it answers", r"reasoning", lambda: Step(reasoning_text="Let me think first.")),
    (
        "redirect",
        "redirects to its own /_trap, which counts who follows",
        r"redirect",
        lambda: Step(status=307, redirect_to="/_trap"),
    ),
)

_PATTERNS = tuple((re.compile(rf"(?:fake/)?{pattern}"), make) for _, _, pattern, make in _MODES)

MODES: dict[str, str] = {name: what for name, what, _, _ in _MODES}
"""Each mode's name and what it does."""


def step_for_model(model: str) -> Step | None:
    """The step that a model's name asks for, None for an ordinary name."""
    for pattern, make in _PATTERNS:
        found = pattern.fullmatch(model)
        if found:
            return make(*found.groups())
    return None
