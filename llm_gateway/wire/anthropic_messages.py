"""A message request in Anthropic's format: the fields and betas that we know to be safe pass, the rest does not.

Anthropic sells more through fields than OpenAI does: faster service at six times the price, another region at 1.1
times, servers that search, run code and call strangers, conversations kept on its side whose length nobody here knows.
It refuses fields that it does not know itself, so a list of what may pass keeps out nothing that would have worked
without somebody looking at its price first (docs/decisions/0106).

Source: Anthropic API reference, "Create a Message", "Count tokens in a Message", "Beta headers" (read 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from core.errors import InvalidInput
from core.json_input import decode_object
from llm_gateway.limits.estimate import Estimate, ModelBounds, UnboundedCall
from llm_gateway.limits.estimate_messages import estimate_messages
from llm_gateway.wire.anthropic_answer import MessageStream, read_message, read_token_count
from llm_gateway.wire.anthropic_dialect import ANTHROPIC, AnthropicDialect
from llm_gateway.wire.format import Endpoint, FieldRefused, FormatRequest, WholeAnswer

if TYPE_CHECKING:
    from llm_gateway.catalog import Deployment

# All report usage in the same words. The client's own is passed on; who says none speaks the first.
_VERSIONS: Final = (b"2023-06-01", b"2026-10-21")

_FIELDS: Final = frozenset(
    """
    cache_control context_management inference_geo max_tokens messages metadata model output_config output_format
    service_tier speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p
    """.split()  # noqa: SIM905 -- one word a line reads worse
)
# Betas that change neither the price, nor who is asked, nor how much may be asked. Any other is left out of the
# request: what it would have allowed needs a field, which is refused by name, or is refused by Anthropic.
_BETAS: Final = frozenset(
    """
    computer-use-2024-10-22 computer-use-2025-01-24 computer-use-2025-11-24 context-management-2025-06-27
    effort-2025-11-24 extended-cache-ttl-2025-04-11 fine-grained-tool-streaming-2025-05-14
    interleaved-thinking-2025-05-14 model-context-window-exceeded-2025-08-26 output-128k-2025-02-19
    output-300k-2026-03-24 pdfs-2024-09-25 prompt-caching-2024-07-31 structured-outputs-2025-11-13
    task-budgets-2026-03-13 thinking-token-count-2026-05-13 token-counting-2024-11-01
    token-efficient-tools-2025-02-19
    """.split()  # noqa: SIM905 -- one word a line reads worse
)
_CLIENT_TOOL: Final = re.compile(r"(?:bash|text_editor|computer|memory)_\d{8}")
# What else a picture may have could make it larger than the model's most for one.
_IMAGE_FIELDS: Final = frozenset({"type", "source", "cache_control"})
_SMALLEST_THINKING_BUDGET: Final = 1024


class MessagesFormat:
    """`POST /v1/messages`; see Format."""

    endpoint: Endpoint = "messages"
    dialect: AnthropicDialect = ANTHROPIC

    def parse(self, raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
        request = parse_message(raw, headers, max_json_depth=max_json_depth)
        if request.body.get("max_tokens") is None:
            raise FieldRefused("max_tokens", "Field required.", code="missing_required_parameter")
        return request

    def estimate(self, request: FormatRequest, bounds: ModelBounds) -> Estimate:
        return estimate_messages(request.body, bounds)

    def check_translatable(self, request: FormatRequest) -> None:
        """Translating for another protocol, litellm would fetch pictures from inside our network."""
        for position, message in enumerate(request.body["messages"]):
            for where in _remote_sources(message.get("content"), f"messages.{position}.content"):
                raise FieldRefused(
                    where,
                    "This model takes pictures only as base64, not as addresses to fetch.",
                    code="unsupported_content",
                )

    def upstream_body(
        self, request: FormatRequest, deployment: Deployment, estimate: Estimate
    ) -> dict[str, Any]:  # Any: the client's fields pass through as they are
        body = {**request.body, "model": deployment.model, "max_tokens": estimate.max_output_tokens}
        thinking = body.get("thinking")
        budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
        if isinstance(budget, int) and estimate.max_output_tokens < request.body["max_tokens"]:
            # Clamped below its budget for thinking, the request would be refused for what the client did not write.
            most = max(estimate.max_output_tokens - 1, _SMALLEST_THINKING_BUDGET)
            body["thinking"] = {**body["thinking"], "budget_tokens": min(budget, most)}
        return body

    def stream_reader(self, request: FormatRequest, *, held_tokens: int) -> MessageStream:
        return MessageStream(held_tokens=held_tokens)

    def read_whole(self, raw: bytes) -> WholeAnswer:
        return read_message(raw)


class CountTokensFormat(MessagesFormat):
    """`POST /v1/messages/count_tokens`: the same request without an answer; it counts as one and costs nothing."""

    endpoint: Endpoint = "count_tokens"

    def estimate(self, request: FormatRequest, bounds: ModelBounds) -> Estimate:
        """Nothing; what messages refuses is refused here as well."""
        estimate_messages(request.body, bounds)
        return Estimate(prompt_tokens=0, max_output_tokens=0, choices=1)

    def upstream_body(
        self, request: FormatRequest, deployment: Deployment, estimate: Estimate
    ) -> dict[str, Any]:  # Any: the client's fields pass through as they are
        body = {name: value for name, value in request.body.items() if name not in {"max_tokens", "stream"}}
        body["model"] = deployment.model
        return body

    def parse(self, raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
        request = parse_message(raw, headers, max_json_depth=max_json_depth)
        if request.stream:
            raise FieldRefused("stream", "A count is not streamed.")
        return request

    def read_whole(self, raw: bytes) -> WholeAnswer:
        return read_token_count(raw)


MESSAGES: Final = MessagesFormat()
COUNT_TOKENS: Final = CountTokensFormat()


def parse_message(raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
    """The request that the bytes hold. Raises: InvalidInput."""
    body = decode_object(raw, max_json_depth)
    _check_fields(body)
    _check_context_management(body.get("context_management"))
    _check_tools(body.get("tools"))
    _check_names(body)
    return FormatRequest(body=body, model=_model(body), stream=_stream(body), headers=_headers(headers))


def _check_fields(body: dict[str, Any]) -> None:
    for field in body:
        if field not in _FIELDS:
            shown = field[:64]
            raise FieldRefused(shown, f"`{shown}` is not accepted by this gateway.", code="unsupported_parameter")


def _check_context_management(value: object) -> None:
    """Clearing makes a prompt shorter; summarising it is another call, which nobody held for."""
    edits = value.get("edits") if isinstance(value, dict) else value
    for position, edit in enumerate(edits if isinstance(edits, list) else [] if edits is None else [edits]):
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(kind, str) or not kind.startswith("clear_"):
            raise UnboundedCall(
                "Only edits that clear are accepted here.", details={"param": f"context_management.edits.{position}"}
            )


def _check_tools(tools: object) -> None:
    """Of the tools whose schema Anthropic supplies, those pass that the client runs and whose length is known."""
    for position, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else "?"
        if kind not in (None, "custom") and not (isinstance(kind, str) and _CLIENT_TOOL.fullmatch(kind)):
            raise UnboundedCall(
                f"Tools of type `{str(kind)[:64]}` have no price here. Send tools that you run yourself.",
                details={"param": f"tools.{position}"},
            )


def _check_names(body: dict[str, Any]) -> None:
    """Servers written in Go match names without their case, and the last one counts: `Type` would pass every check."""
    for name in ("system", "tools"):
        _check_entries(body.get(name), name)
    for position, message in enumerate(body["messages"] if isinstance(body.get("messages"), list) else ()):
        where = f"messages.{position}"
        _check_object(message, where)
        if isinstance(message, dict):
            content = message.get("content")
            if not isinstance(content, str | list):
                raise FieldRefused(f"{where}.content", "The content must be a text or a list of blocks.")
            _check_entries(content, f"{where}.content")


def _check_entries(entries: object, where: str) -> None:
    """One block alone, without its list, would be looked at by nobody here, and taken by a lenient server."""
    if isinstance(entries, dict):
        raise FieldRefused(where, "This must be a list.", code="invalid_type")
    for position, entry in enumerate(entries if isinstance(entries, list) else ()):
        _check_object(entry, f"{where}.{position}")
        if not isinstance(entry, dict):
            continue
        _check_entries(entry.get("content"), f"{where}.{position}.content")
        source = entry.get("source")
        if entry.get("type") == "image" and not entry.keys() <= _IMAGE_FIELDS:
            raise UnboundedCall("Pictures pass as they are here.", details={"param": f"{where}.{position}"})
        if isinstance(source, dict):
            _check_object(source, f"{where}.{position}.source")
            if entry.get("type") == "document" and source.get("type") == "url":
                raise UnboundedCall("Documents pass as data only.", details={"param": f"{where}.{position}.source"})
            _check_entries(source.get("content"), f"{where}.{position}.source.content")


def _check_object(value: object, where: str) -> None:
    for field in value if isinstance(value, dict) else ():
        if not field.isascii() or field != field.lower():
            raise FieldRefused(where, f"`{field[:64]}` is not a field of this format.", code="unknown_parameter")


def _remote_sources(content: object, where: str) -> Iterator[str]:
    for position, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, dict):
            continue
        source = block.get("source")
        if isinstance(source, dict):
            if source.get("type") == "url":
                yield f"{where}.{position}.source"
            yield from _remote_sources(source.get("content"), f"{where}.{position}.source.content")
        yield from _remote_sources(block.get("content"), f"{where}.{position}.content")


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > 256:
        raise FieldRefused("model", "The name of a model is required; GET /llm/v1/models lists them.")
    return model


def _stream(body: dict[str, Any]) -> bool:
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise FieldRefused("stream", "Input should be a valid boolean.", code="invalid_type")
    return bool(stream)


def _headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    version = headers.get(b"anthropic-version") or _VERSIONS[0]
    if version not in _VERSIONS:
        known = " and ".join(one.decode() for one in _VERSIONS)
        raise InvalidInput(f"Only {known} are spoken here.", details={"param": "anthropic-version"})
    passing = {"anthropic-version": version.decode()}
    if asked := headers.get(b"anthropic-beta"):
        betas = [beta for beta in map(str.strip, asked.decode("latin-1").split(",")) if beta in _BETAS]
        if betas:
            passing["anthropic-beta"] = ",".join(betas)
    return passing
