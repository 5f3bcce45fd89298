"""A response request in OpenAI's format: what of it concerns us is checked, everything else passes untouched.

The gateway keeps no conversations, and has the provider keep none: a prompt that is partly somewhere else can be
neither bounded nor kept apart from other people's (docs/decisions/0110).

Source: OpenAI API reference, "Create a model response" (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from core.errors import InvalidInput
from core.json_input import decode_object
from llm_gateway.limits.estimate import Estimate, ModelBounds, UnboundedCall, positive, refuse_unbounded, service_tier
from llm_gateway.wire.format import Endpoint, FieldRefused, FormatRequest, WholeAnswer
from llm_gateway.wire.openai_dialect import OPENAI, OpenAIDialect
from llm_gateway.wire.openai_fields import check_spelling, flag, model_name, refuse_forbidden
from llm_gateway.wire.openai_responses_answer import ResponsesStream, read_response
from llm_gateway.wire.openai_responses_input import bound_prompt, check_input, check_tools, pictures

if TYPE_CHECKING:
    from llm_gateway.catalog import Deployment

_SEND_IT_WHOLE: Final = (
    "This gateway keeps no conversations: leave out `{field}`, and send all earlier items in `input`."
)
_REFUSED: Final[Mapping[str, str]] = {
    "previous_response_id": _SEND_IT_WHOLE,
    "conversation": _SEND_IT_WHOLE,
    "prompt": "This gateway does not see stored prompts: leave out `{field}`, and send its text in `input`.",
    "background": "Answers are given at once here, or streamed: leave out `{field}`.",
    "context_management": "Compaction at the provider has no bound: leave out `{field}`, and shorten `input` yourself.",
    "moderation": "The provider's moderation is a call of its own, without a price here: leave out `{field}`.",
    "messages": "`{field}` belongs to chat completions: use `input`.",
}
# Multipliers and other words for a maximum of output, which lenient servers would follow.
_OTHER_MAXIMA: Final = frozenset(
    """
    best_of max_completion_tokens max_length max_new_tokens max_tokens min_tokens n n_predict num_predict options
    """.split()  # noqa: SIM905 -- one word a line reads worse
)


class ResponsesFormat:
    """`POST /v1/responses`; see Format."""

    endpoint: Endpoint = "responses"
    dialect: OpenAIDialect = OPENAI

    def parse(self, raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
        return parse_responses(raw, max_json_depth=max_json_depth)

    def estimate(self, request: FormatRequest, bounds: ModelBounds) -> Estimate:
        body = request.body
        refuse_unbounded(body)
        asked = bounds.max_output_tokens
        if body.get("max_output_tokens") is not None:
            asked = positive(body, "max_output_tokens")
        prompt = bound_prompt(body, bounds)
        return Estimate(
            prompt_tokens=prompt.bound(bounds),
            max_output_tokens=min(asked, bounds.max_output_tokens),
            choices=1,
            fixed_tokens=prompt.fixed_tokens,
            media_tokens=prompt.media_tokens,
            text_bytes=prompt.text_bytes,
            service=service_tier(body),
        )

    def check_translatable(self, request: FormatRequest) -> None:
        """Translating for another protocol, litellm would fetch pictures from inside our network."""
        for place, part in pictures(request.body["input"]):
            if not part["image_url"].startswith("data:"):
                raise InvalidInput(
                    "This model takes pictures only as data: URLs, not as addresses to fetch.",
                    code="unsupported_content",
                    details={"param": place},
                )

    def upstream_body(
        self, request: FormatRequest, deployment: Deployment, estimate: Estimate
    ) -> dict[str, Any]:  # Any: the client's fields pass through as they are
        return {
            **request.body,
            "model": deployment.model,
            "max_output_tokens": estimate.max_output_tokens,
            "store": False,
        }

    def stream_reader(self, request: FormatRequest, *, held_tokens: int) -> ResponsesStream:
        return ResponsesStream(held_tokens=held_tokens)

    def read_whole(self, raw: bytes) -> WholeAnswer:
        return read_response(raw)


RESPONSES: Final = ResponsesFormat()


def parse_responses(raw: bytes, *, max_json_depth: int) -> FormatRequest:
    """The request that the bytes hold.

    Raises: InvalidInput, with the field's name in `details["param"]` where one is to blame.
    """
    body = decode_object(raw, max_json_depth)
    refuse_forbidden(body, other_maxima=_OTHER_MAXIMA, use="`max_output_tokens`")
    _refuse_state(body)
    check_input(body)
    check_tools(body)
    _check_options(body)
    flag(body, "store")
    return FormatRequest(body=body, model=model_name(body), stream=flag(body, "stream"))


def _refuse_state(body: Mapping[str, object]) -> None:
    for field, sentence in _REFUSED.items():
        if body.get(field) is not None and body[field] is not False:
            raise UnboundedCall(sentence.format(field=field), code="unsupported_parameter", details={"param": field})


def _check_options(body: Mapping[str, Any]) -> None:  # Any: JSON
    for field in ("reasoning", "stream_options", "text"):
        options = body.get(field)
        if not isinstance(options, dict | None):
            raise FieldRefused(field, f"`{field}` must be an object.", code="invalid_type")
        check_spelling(options, field)
    if (body.get("reasoning") or {}).get("mode") not in (None, "standard"):
        raise UnboundedCall(
            "Only the standard mode of reasoning has a price here: leave out `reasoning.mode`.",
            details={"param": "reasoning.mode"},
        )
