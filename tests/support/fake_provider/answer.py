"""What the model says: made from the request and the step, before any format shapes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import orjson

from tests.support.fake_provider.schema_example import example_json
from tests.support.fake_provider.steps import Step, UsageReport
from tests.support.fake_provider.tokens import json_pieces, text_pieces

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
JsonObject = dict[str, object]

DEFAULT_TEXT = "This answer comes from the fake provider, word for word."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the request offers to the model."""

    name: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request to a model, whatever its format. `must_call_tool` is a tool's name, "" for any, None for no duty.

    `inputs`, `dimensions` and `as_base64` are for embeddings only.
    """

    model: str
    user: str | None
    stream: bool
    prompt_tokens: int
    max_output_tokens: int | None = None
    choices: int = 1
    include_usage: bool = True
    tools: tuple[Tool, ...] = ()
    must_call_tool: str | None = None
    schema: Mapping[str, object] | None = None
    last_user_text: str = ""
    inputs: tuple[object, ...] = ()
    dimensions: int | None = None
    as_base64: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledTool:
    """A tool call of the answer, its arguments cut into tokens."""

    call_id: str
    name: str
    argument_pieces: tuple[str, ...]

    @property
    def arguments(self) -> str:
        return "".join(self.argument_pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, cut into tokens; with several choices each says the same. Counts are tokens."""

    number: int
    created_s: int
    reasoning_pieces: tuple[str, ...]
    pieces: tuple[str, ...]
    tools: tuple[CalledTool, ...]
    finish: FinishReason
    choices: int
    input_tokens: int
    cached_input_tokens: int
    usage: UsageReport
    done_events: int
    endless: bool
    padding: str
    without_choices: bool
    failure: Mapping[str, str] | None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def reasoning_tokens(self) -> int:
        return len(self.reasoning_pieces) * self.choices

    @property
    def output_tokens(self) -> int:
        visible = len(self.pieces) + sum(len(tool.argument_pieces) for tool in self.tools)
        return (visible + len(self.reasoning_pieces)) * self.choices


def compose(call: Call, step: Step, *, number: int, created_s: int) -> Answer:
    """The whole answer to the call, cut at `max_output_tokens` unless the step ignores that."""
    reasoning = text_pieces(step.reasoning_text)
    tools = _called_tools(call, step, number)
    pieces = () if tools and step.text is None else text_pieces(_words(call, step))
    finish: FinishReason = "tool_calls" if tools else "stop"
    limit = None if step.ignores_max_tokens or step.endless else call.max_output_tokens
    if limit is not None:
        room = limit - len(reasoning)
        if len(pieces) + sum(len(tool.argument_pieces) for tool in tools) > room:
            finish = "length"
        reasoning, pieces = reasoning[:limit], pieces[: max(room, 0)]
        tools = _shortened(tools, room - len(pieces))
    return Answer(
        number=number,
        created_s=created_s,
        reasoning_pieces=reasoning,
        pieces=pieces,
        tools=tools,
        finish=step.finish_reason or finish,
        choices=call.choices,
        input_tokens=call.prompt_tokens if step.input_tokens is None else step.input_tokens,
        cached_input_tokens=step.cached_input_tokens,
        usage=step.usage,
        done_events=step.done_events,
        endless=step.endless,
        padding="x" * step.padding_bytes,
        without_choices=step.body == "empty_choices",
        failure=None
        if step.failure_code is None
        else {"code": step.failure_code, "message": step.error_message or "The server had an error."},
    )


def _words(call: Call, step: Step) -> str:
    if step.text is not None:
        return step.text
    if step.echo_prompt:
        return call.last_user_text
    if step.output_tokens is not None:
        return " ".join(f"word{position}" for position in range(step.output_tokens))
    if call.schema is not None:
        return example_json(call.schema)
    return DEFAULT_TEXT


def _called_tools(call: Call, step: Step, number: int) -> tuple[CalledTool, ...]:
    wanted = [(tool.name, tool.arguments) for tool in step.tool_calls]
    if not wanted and call.tools and (step.call_first_tool or call.must_call_tool is not None):
        tool = next((one for one in call.tools if one.name == call.must_call_tool), call.tools[0])
        wanted = [(tool.name, _compact(example_json(tool.schema)))]
    return tuple(
        CalledTool(call_id=f"fake{number:08d}{position}", name=name, argument_pieces=json_pieces(arguments))
        for position, (name, arguments) in enumerate(wanted)
    )


def _compact(json_text: str) -> str:
    return orjson.dumps(orjson.loads(json_text)).decode()


def _shortened(tools: tuple[CalledTool, ...], room: int) -> tuple[CalledTool, ...]:
    kept = []
    for tool in tools:
        kept.append(
            CalledTool(call_id=tool.call_id, name=tool.name, argument_pieces=tool.argument_pieces[: max(room, 0)])
        )
        room -= len(tool.argument_pieces)
    return tuple(kept)
