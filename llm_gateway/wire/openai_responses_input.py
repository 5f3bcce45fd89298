"""What a `POST /v1/responses` request puts before the model: which items, parts and tools are taken, and their bound.

Taken is what this gateway sees whole. What the provider would fetch, run or remember is refused by its name: nobody can
say before the call how long it makes the prompt, or what it costs.

Source: OpenAI API reference, "Create a model response", `input` and `tools` (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from llm_gateway.limits.estimate import (
    TOKENS_A_CALL,
    TOKENS_A_MESSAGE,
    TOKENS_FOR_TOOLS,
    ModelBounds,
    PromptSum,
    UnboundedCall,
)
from llm_gateway.limits.estimate import json_bytes as _bytes
from llm_gateway.wire.format import FieldRefused
from llm_gateway.wire.openai_fields import check_spelling, shown

Item = dict[str, Any]  # Any: JSON of the client's own

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "reasoning_text", "refusal", "summary_text", "text"})
_IMAGE: Final = "input_image"
_PICTURE_FIELDS: Final = frozenset({"type", "image_url", "detail", "file_id"})
_CALLS: Final = frozenset({"custom_tool_call", "function_call"})
_CALL_OUTPUTS: Final = frozenset({"custom_tool_call_output", "function_call_output"})
_WITH_PARTS: Final = ("content", "output", "summary")

_OWN_TOOLS: Final = frozenset({"custom", "function"})  # they are run by the client
_PROVIDERS_TOOLS: Final = frozenset(
    """
    browser_search code_execution code_interpreter computer computer_use computer_use_preview file_search
    image_generation mcp programmatic_tool_calling shell tool_search web_search web_search_preview x_search
    """.split()  # noqa: SIM905 -- one word a line reads worse
)


def check_input(body: Mapping[str, Any]) -> None:  # Any: JSON
    """`input` and `instructions` are texts and items that can be bounded. Raises: FieldRefused, UnboundedCall."""
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        missing = given is None
        raise FieldRefused(
            "input",
            "`input` must be a text or a list of at least one item.",
            code="missing_required_parameter" if missing else "invalid_type",
        )
    if not isinstance(body.get("instructions"), str | None):
        raise FieldRefused("instructions", "`instructions` must be a text.", code="invalid_type")
    for position, item in enumerate(given if isinstance(given, list) else ()):
        _check_item(item, f"input[{position}]")


def check_tools(body: Mapping[str, Any]) -> None:  # Any: JSON
    """The model may call what the client runs, and nothing else. Raises: FieldRefused."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is not None:
        _check_tool_list(tools, "tools", also=frozenset({"namespace"}))
    if isinstance(choice, dict):
        check_spelling(choice, "tool_choice")
        if choice.get("type") == "allowed_tools":
            _check_tool_list(choice.get("tools"), "tool_choice.tools")
        else:
            _check_tool(choice, "tool_choice", _OWN_TOOLS)
    elif not isinstance(choice, str | None):
        raise FieldRefused("tool_choice", "`tool_choice` must be a text or an object.", code="invalid_type")


def bound_prompt(body: Mapping[str, Any], bounds: ModelBounds) -> PromptSum:  # Any: JSON
    """What the model can read at most for this request, which was checked. Raises: UnboundedCall.

    All its bytes count, but those of pictures: JSON has at least as many as what the model reads of it.
    """
    given = body["input"]
    items = len(given) if isinstance(given, list) else 1
    total = PromptSum(TOKENS_A_CALL + items * TOKENS_A_MESSAGE, _bytes(body))
    for place, part in pictures(given):
        if bounds.image_tokens is None:
            raise UnboundedCall(f"This model takes no content of type `{_IMAGE}` here.", details={"param": place})
        total.add_media(bounds.image_tokens)
        total.text_bytes -= len(part["image_url"].encode())
    if body.get("tools"):
        total.fixed_tokens += TOKENS_FOR_TOOLS
    return total


def pictures(given: str | list[Item]) -> Iterator[tuple[str, Item]]:
    """Every picture in an `input` that was checked, and where it stands."""
    for position, item in enumerate(given if isinstance(given, list) else ()):
        for field in ("content", "output"):
            parts = item.get(field)
            for number, part in enumerate(parts if isinstance(parts, list) else ()):
                if part["type"] == _IMAGE:
                    yield f"input[{position}].{field}[{number}]", part


def _check_item(item: object, where: str) -> None:
    if not isinstance(item, dict):
        raise FieldRefused(where, "Each of `input` must be an object.", code="invalid_type")
    check_spelling(item, where)
    kind = item.get("type")
    if kind is None or kind == "message":
        _check_message(item, where)
    elif kind == "reasoning":
        _check_reasoning(item, where)
    elif not isinstance(kind, str) or kind not in _CALLS | _CALL_OUTPUTS:
        _refuse_item(kind, where)
    for field in _WITH_PARTS:
        _check_parts(item.get(field), f"{where}.{field}")


def _check_message(item: Item, where: str) -> None:
    """Without `role` and `content` it would be a reference to something that the provider keeps."""
    if not isinstance(item.get("role"), str):
        if "id" in item:
            _refuse_item("item_reference", where)
        raise FieldRefused(where, "Each message of `input` must have a `role`.", code="invalid_type")
    if not isinstance(item.get("content"), str | list):
        raise FieldRefused(
            f"{where}.content",
            "The `content` of a message must be a text or a list of parts.",
            code="invalid_type",
        )


def _check_reasoning(item: Item, where: str) -> None:
    if not isinstance(item.get("encrypted_content"), str | None):
        raise FieldRefused(f"{where}.encrypted_content", "`encrypted_content` must be a text.", code="invalid_type")
    if not any(item.get(field) for field in ("encrypted_content", "content", "summary")):
        raise UnboundedCall(
            "Nothing is stored at the provider, so a reasoning item must bring its content: "
            'ask for `include: ["reasoning.encrypted_content"]`, and send the items back as they came.',
            details={"param": where},
        )


def _refuse_item(kind: object, where: str) -> None:
    name = shown(kind) if isinstance(kind, str) else "?"
    if kind == "item_reference":
        reason = "refers to what the provider keeps, which this gateway does not see: send the item itself"
    else:
        reason = "is not taken here: only messages, calls of your own tools, their outputs and reasoning are"
    raise UnboundedCall(f"An item of type `{name}` {reason}.", details={"param": where})


def _check_parts(parts: object, where: str) -> None:
    """One part alone, without its list, would be looked at by nobody here, and taken by a lenient server."""
    if parts is None or isinstance(parts, str):
        return
    if not isinstance(parts, list):
        raise FieldRefused(where, "It must be a text or a list of parts.", code="invalid_type")
    for number, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise FieldRefused(f"{where}[{number}]", "Each part must be an object with a `type`.", code="invalid_type")
        check_spelling(part, f"{where}[{number}]")
        if kind == _IMAGE and not where.endswith(".summary"):
            _check_picture(part, f"{where}[{number}]")
        elif kind not in _TEXT_PARTS:
            raise UnboundedCall(
                f"Content of type `{shown(kind)}` is not taken here: send text and pictures.",
                details={"param": f"{where}[{number}]"},
            )


def _check_picture(part: Item, where: str) -> None:
    if part.get("file_id") is not None:
        raise UnboundedCall(
            "Files stored at the provider are not yours or ours to send: give the picture as an `image_url`.",
            details={"param": f"{where}.file_id"},
        )
    unknown = sorted(part.keys() - _PICTURE_FIELDS)
    if unknown:
        raise UnboundedCall(
            "A picture has an `image_url` and a `detail`; nobody here can say what it counts for with other fields.",
            details={"param": f"{where}.{shown(unknown[0])}"},
        )
    if not isinstance(part.get("image_url"), str):
        raise FieldRefused(f"{where}.image_url", "`image_url` must be a text: an address or a data: URL.")


def _check_tool_list(tools: object, where: str, *, also: frozenset[str] = frozenset()) -> None:
    if not isinstance(tools, list):
        raise FieldRefused(where, f"`{where}` must be a list.", code="invalid_type")
    for position, tool in enumerate(tools):
        place = f"{where}[{position}]"
        _check_tool(tool, place, _OWN_TOOLS | also)
        if tool["type"] == "namespace":
            _check_tool_list(tool.get("tools"), f"{place}.tools")


def _check_tool(tool: object, where: str, allowed: frozenset[str]) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    check_spelling(tool, where)
    if not isinstance(kind, str):
        raise FieldRefused(where, "A tool must be an object with a `type`.", code="invalid_type")
    if kind in allowed:
        return
    # `web_search_2026_01_01` and the like: the vendors date their tools
    if kind in _PROVIDERS_TOOLS or any(kind.startswith(f"{name}_2") for name in _PROVIDERS_TOOLS):
        reason = "is run by the provider itself, for a price that nobody knows before the call"
    else:
        reason = "is not taken here"
    raise FieldRefused(
        where,
        f"The tool `{shown(kind)}` {reason}. Use tools of type `function` or `custom`, which you run yourself.",
        code="unsupported_tool",
    )
