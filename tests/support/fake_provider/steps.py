"""What a test can script: one `Step` tells how the fake provider answers one request (or several)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

UsageReport = Literal["normal", "missing", "null", "every_chunk"]
ConnectionFault = Literal["none", "reset", "close", "never_answer"]
BodyFault = Literal["none", "malformed_json", "half_json", "cut_json", "wrong_content_type", "empty", "empty_choices"]
Cut = Literal["end", "close", "reset"]
_NOTHING_UNKNOWN = ConfigDict(extra="forbid")


class ScriptInvalid(ValueError):
    """The script has a step that the fake provider does not understand."""


@with_config(_NOTHING_UNKNOWN)
@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests take a step: all that is given must be equal; header names in lower case."""

    path: str | None = None
    model: str | None = None
    user: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@with_config(_NOTHING_UNKNOWN)
@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool that the model makes; `arguments` is JSON text, on purpose unchecked (it may be malformed)."""

    name: str
    arguments: str = "{}"


@with_config(_NOTHING_UNKNOWN)
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How one request is answered. A chunk is a streamed event that carries output: one token, in every format.

    Which requests: `match` (None: any), `times` (0: for ever).
    What the model says: `text`, or `output_tokens` words, or `echo_prompt`; `tool_calls`; `call_first_tool` of the
    request with arguments made from its schema; `reasoning_text` (thinking in Anthropic's format, only counted in
    OpenAI's);
    `finish_reason` in OpenAI's words; `ignores_max_tokens`; `endless` (until the client leaves); `sse`: a stream is
    these bytes, and nothing else is made up.
    What it reports: `usage`; `input_tokens` and `cached_input_tokens` instead of the counted ones.
    Refusals: `status` (not 200), `error_message`, `retry_after_s`, `headers`, `echoes_authorization` in the error's
    message, `redirect_to`.
    Time, in seconds: `delay_before_headers_s`, `slow_headers_s` (the head trickles), `delay_before_first_chunk_s`,
    `delay_between_chunks_s`. Without any clock: `hold_before_headers`, `hold_after_chunks` and `hold_before_end` (of a
    stream: all its events are out, the end of the HTTP body is not) wait for `/_release`.
    Faults: `connection` before the answer, `body` of an answer that is not streamed; `cut_after_chunks` with `cut`
    (end: well-formed HTTP without the format's end; close: FIN within the body; reset: RST), `error_after_chunks`
    (an error event), `failure_code` (a response that ends as failed, after what it says), `split_bytes` (the stream
    arrives in pieces of that many bytes, without regard to lines or characters), `keep_alive_comments`, `done_events`
    (OpenAI's `[DONE]`), `padding_bytes` in every chunk.
    """

    match: Match | None = None
    times: int = 1

    text: str | None = None
    output_tokens: int | None = None
    echo_prompt: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    call_first_tool: bool = False
    reasoning_text: str = ""
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None = None
    ignores_max_tokens: bool = False
    endless: bool = False
    sse: str | None = None

    usage: UsageReport = "normal"
    input_tokens: int | None = None
    cached_input_tokens: int = 0

    status: int = 200
    error_message: str | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    echoes_authorization: bool = False
    redirect_to: str | None = None

    delay_before_headers_s: float = 0.0
    slow_headers_s: float = 0.0
    delay_before_first_chunk_s: float = 0.0
    delay_between_chunks_s: float = 0.0
    hold_before_headers: bool = False
    hold_after_chunks: int | None = None
    hold_before_end: bool = False

    connection: ConnectionFault = "none"
    body: BodyFault = "none"
    cut_after_chunks: int | None = None
    cut: Cut = "close"
    error_after_chunks: int | None = None
    failure_code: str | None = None
    split_bytes: int | None = None
    keep_alive_comments: bool = False
    done_events: int = 1
    padding_bytes: int = 0

    def as_json(self) -> dict[str, object]:
        """The step as `POST /_script` takes it: what differs from the default."""
        whole = asdict(self)
        default = asdict(_DEFAULT)
        return {name: value for name, value in whole.items() if value != default[name]}


_DEFAULT = Step()
_STEPS = TypeAdapter(Step)


def step_from_json(raw: object) -> Step:
    """The step that the JSON object describes.

    Raises: ScriptInvalid naming the fields that are unknown or wrong.
    """
    try:
        return _STEPS.validate_python(raw)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc'])) or 'step'}: {one['msg']}" for one in error.errors())
        raise ScriptInvalid("; ".join(problems)) from error


class Script:
    """The steps still to be played; a request takes the first one that matches it."""

    def __init__(self) -> None:
        self._steps: list[tuple[Step, int]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def append(self, steps: list[Step]) -> None:
        """The steps come after those that are queued."""
        self._steps.extend((step, step.times) for step in steps)

    def clear(self) -> None:
        """No step is queued."""
        self._steps.clear()

    def take(self, *, path: str, model: str, user: str | None, headers: Mapping[str, str]) -> Step | None:
        """The step for this request, used up once it was taken `times` times; None when none matches."""
        for position, (step, left) in enumerate(self._steps):
            if _matches(step.match, path, model, user, headers):
                if left == 1:
                    del self._steps[position]
                elif left > 1:
                    self._steps[position] = (step, left - 1)
                return step
        return None


def _matches(match: Match | None, path: str, model: str, user: str | None, headers: Mapping[str, str]) -> bool:
    if match is None:
        return True
    return (
        match.path in (None, path)
        and match.model in (None, model)
        and match.user in (None, user)
        and all(headers.get(name) == value for name, value in match.headers.items())
    )
