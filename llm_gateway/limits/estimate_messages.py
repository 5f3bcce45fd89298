"""The most that a request in Anthropic's format can use.

Every prompt is bounded by the model's context: that is the bound of a PDF, whose pages cannot be counted without
reading it. Source: Anthropic API reference, "Create a Message"; "Vision", "PDF support", "Tool use" (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from core.errors import InvalidInput
from llm_gateway.limits.estimate import (
    TOKENS_A_CALL,
    TOKENS_A_MESSAGE,
    TOKENS_FOR_TOOLS,
    Estimate,
    ModelBounds,
    PromptSum,
    UnboundedCall,
    cache_writes,
    json_bytes,
    positive,
    refuse_unbounded,
    service_tier,
)

# What Anthropic tells the model about its own tools that the client runs: 245 (bash) to 735 and 499 (computer) tokens.
_TOKENS_A_VENDORS_TOOL: Final = 2048
# Tools whose work the client does. The others are run by the provider, at prices that the catalogue does not have.
_CLIENTS_TOOLS: Final = ("bash_", "computer_", "memory_", "text_editor_")

_TEXT_BLOCKS: Final = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
_WITH_BLOCKS: Final = frozenset({"tool_result", "search_result"})
_ORDINARY: Final = {"speed": (None, "standard"), "inference_geo": (None, "global")}
_RUN_BY_THE_PROVIDER: Final = {"container": "A container", "mcp_servers": "A server of tools"}


def estimate_messages(body: Mapping[str, object], bounds: ModelBounds) -> Estimate:
    """The most that this request can use.

    Raises: InvalidInput naming the field that is wrong; UnboundedCall for what has no bound.
    """
    refuse_unbounded(body, bounded={"cache_control"})
    _refuse_dearer(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("`messages` must be a list with at least one message.", details={"param": "messages"})
    walk = _Walk(bounds)
    walk.text({name: value for name, value in body.items() if name not in {"messages", "system"}})
    walk.note(body, "cache_control")
    walk.tools(body.get("tools"))
    walk.content(body.get("system"), "system")
    for position, message in enumerate(messages):
        walk.message(message, f"messages[{position}]")
    return Estimate(
        prompt_tokens=walk.total.bound(bounds),
        max_output_tokens=_max_output_tokens(body, bounds),
        choices=1,
        fixed_tokens=walk.total.fixed_tokens,
        media_tokens=walk.total.media_tokens,
        text_bytes=walk.total.text_bytes,
        classes=cache_writes(walk.controls),
        service=service_tier(body),
    )


class _Walk:
    """Adds up what the model reads, and notes each `cache_control` on the way."""

    def __init__(self, bounds: ModelBounds) -> None:
        self._bounds = bounds
        self.total = PromptSum(TOKENS_A_CALL)
        self.controls: list[tuple[str, object]] = []

    def text(self, value: object) -> None:
        """All the bytes of the value count."""
        self.total.text_bytes += json_bytes(value)

    def note(self, holder: Mapping[str, object], where: str) -> None:
        """Whatever the holder asks of the provider's cache is noted."""
        if holder.get("cache_control") is not None:
            self.controls.append((where, holder["cache_control"]))

    def tools(self, tools: object) -> None:
        """Their bytes were counted with the body; here are the vendor's instructions for using them."""
        if not tools:
            return
        if not isinstance(tools, list):
            raise InvalidInput("`tools` must be a list.", details={"param": "tools"})
        self.total.fixed_tokens += TOKENS_FOR_TOOLS
        for position, tool in enumerate(tools):
            where = f"tools[{position}]"
            kind = tool.get("type", "custom") if isinstance(tool, dict) else None
            if not isinstance(kind, str) or not (kind == "custom" or kind.startswith(_CLIENTS_TOOLS)):
                raise UnboundedCall(
                    "Only tools that the client runs are supported here, not those of the provider.",
                    details={"param": where},
                )
            self.total.fixed_tokens += 0 if kind == "custom" else _TOKENS_A_VENDORS_TOOL
            self.note(tool, where)

    def message(self, message: object, where: str) -> None:
        if not isinstance(message, dict):
            raise InvalidInput(f"`{where}` must be an object.", details={"param": where})
        self.total.fixed_tokens += TOKENS_A_MESSAGE
        self.text({name: value for name, value in message.items() if name != "content"})
        self.content(message.get("content"), f"{where}.content")

    def content(self, content: object, where: str) -> None:
        """A text, or blocks; what was nested deeper than blocks in blocks are is bytes."""
        if content is None or isinstance(content, str):
            self.text(content or "")
            return
        if not isinstance(content, list):
            raise InvalidInput(f"`{where}` must be a text or a list.", details={"param": where})
        for position, block in enumerate(content):
            self._block(block, f"{where}[{position}]")

    def _block(self, block: object, where: str) -> None:
        fields: dict[str, object] = block if isinstance(block, dict) else {}
        kind = _kind(fields)
        self.note(fields, where)
        if kind in _TEXT_BLOCKS:
            self.text(fields)
        elif kind in _WITH_BLOCKS:
            self.text({name: value for name, value in fields.items() if name != "content"})
            self.content(fields.get("content"), f"{where}.content")
        elif kind == "image" and self._bounds.image_tokens is not None and _kind_of_source(fields) in {"base64", "url"}:
            self.total.add_media(self._bounds.image_tokens)
        elif kind == "document":
            self._document(fields, where)
        else:
            raise _no_content(kind, where)

    def _document(self, fields: Mapping[str, object], where: str) -> None:
        """A text is its bytes. Of a PDF each page is read as text and seen as a picture."""
        source = fields.get("source")
        kind = _kind_of_source(fields)
        self.text({name: value for name, value in fields.items() if name != "source"})
        if kind == "text":
            self.text(source)
        elif kind == "content" and isinstance(source, dict):
            self.content(source.get("content"), f"{where}.source.content")
        elif kind in {"base64", "url"} and self._bounds.image_tokens is not None:
            self.total.add_media(self._bounds.context_window)
        else:
            raise _no_content("document", where)


def _kind_of_source(fields: Mapping[str, object]) -> str | None:
    """`file` is one that the provider keeps for whoever has the key, which is not the caller: it is not taken."""
    source = fields.get("source")
    return _kind(source) if isinstance(source, dict) else None


def _kind(fields: Mapping[str, object]) -> str | None:
    kind = fields.get("type")
    return kind if isinstance(kind, str) else None


def _no_content(kind: str | None, where: str) -> UnboundedCall:
    shown = "?" if kind is None else kind[:64]
    return UnboundedCall(f"This model takes no content of type `{shown}` like this here.", details={"param": where})


def _refuse_dearer(body: Mapping[str, object]) -> None:
    """A faster service and one in a chosen region cost a multiple; what the provider runs is billed by the hour."""
    for field, ordinary in _ORDINARY.items():
        if body.get(field) not in ordinary:
            raise UnboundedCall(f"`{field}` has no price here: leave it out.", details={"param": field})
    for field, what in _RUN_BY_THE_PROVIDER.items():
        if body.get(field):
            raise UnboundedCall(f"{what} is not supported here: leave out `{field}`.", details={"param": field})


def _max_output_tokens(body: Mapping[str, object], bounds: ModelBounds) -> int:
    """What the caller asks for, thinking included, at most what the model can; nought fills the cache, no more."""
    asked = body.get("max_tokens")
    if asked is None:
        return bounds.max_output_tokens
    return (
        0 if asked == 0 and not isinstance(asked, bool) else min(positive(body, "max_tokens"), bounds.max_output_tokens)
    )
