"""What the pipeline needs of a client's format, and nothing more. One `Format` for each address that answers calls.

    parse ──► estimate ──► upstream_body ──► a provider ──► stream_reader | read_whole
    dialect                                  the vendor's errors, limits and ids around all of it

A provider answers in the client's format, so nothing here knows about translating. A format has no state: what belongs
to one call is in its `FormatRequest` and its `StreamReader`. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from core.errors import ButtressError, InvalidInput

if TYPE_CHECKING:
    from llm_gateway.accounting import TokenCounts
    from llm_gateway.catalog import Deployment
    from llm_gateway.limits.estimate import Estimate, ModelBounds
    from llm_gateway.limits.ledger import LimitState
    from llm_gateway.wire.headers import RawHeaders

# As in scopes of keys, usage rows, metrics and a deployment's list of what it speaks natively.
Endpoint = Literal["chat", "responses", "embeddings", "messages", "count_tokens"]


class FieldRefused(InvalidInput):
    """One field of the request cannot be accepted; `param` in the answer names it."""

    def __init__(self, param: str, message: str, *, code: str = "invalid_value") -> None:
        super().__init__(message, code=code, details={"param": param})


class AnswerUnusable(ValueError):
    """The provider's whole answer is not what the format promises."""


class StreamFault(Enum):
    """Why a stream cannot be passed on any further."""

    MALFORMED = "malformed"
    PROVIDER_ERROR = "provider_error"
    TOO_MUCH = "too_much"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRequest:
    """A checked request; `body` is the client's own object. Whoever changes it makes a new one (`replace`).

    `wants_usage` is false where the client must not see the usage that we ask the provider for. `headers` are the
    format's own that the provider is to get, checked as well (`anthropic-beta`, say).
    """

    body: dict[str, Any]  # Any: whatever JSON the client sent; only the fields that concern us are looked at
    model: str
    stream: bool
    wants_usage: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """What is read off an answer that is not streamed.

    `counts` is what the provider reported, None where it did not or the figures are nonsense; then `text_bytes`, the
    UTF-8 bytes that the model wrote, are estimated with, and `has_media` says that there is sound or a picture, too.
    `body` is what the client gets instead of the provider's own. `service` is the service tier that the provider says
    it gave.
    """

    counts: TokenCounts | None
    text_bytes: int
    service: str | None = None
    body: bytes | None = None
    has_media: bool = False


class StreamReader(Protocol):
    """One streamed answer: `feed` gives the bytes for the client and keeps count of what they hold.

    `fault` is set when nothing more may be passed on; what was good before it has been returned. `counts` is what the
    provider reported so far, None before it did; `service` the service tier that it says it gave.
    `echoed_bytes` of what was fed repeat the request, or the whole answer. `text` is what the model wrote, in UTF-8, in
    `chunks` pieces.
    """

    fault: StreamFault | None
    counts: TokenCounts | None
    echoed_bytes: int
    service: str | None
    text: bytearray
    chunks: int

    @property
    def complete(self) -> bool:
        """The answer has reached its end, also when the provider leaves the format's last event out."""
        ...

    @property
    def ended(self) -> bool:
        """The format's last event was seen: only the end of the body is due."""
        ...

    @property
    def output_tokens(self) -> int:
        """The output so far, reasoning included, as an estimate of what was seen."""
        ...

    def with_what_is_no_text(self, tokens: int) -> int:
        """The output so far if its text is so many tokens."""
        ...

    def feed(self, piece: bytes) -> bytes:
        """The bytes to pass on for this piece, which may be cut anywhere; empty until an event is whole."""
        ...

    def end(self) -> bytes:
        """The provider's stream has ended: what is left to pass on (a last event without its empty line, say)."""
        ...

    def error_event(self, error: ButtressError, request_id: str) -> bytes:
        """The event that ends a stream which cannot go on; the official SDKs raise their exception for it."""
        ...


class Dialect(Protocol):
    """How a vendor words what surrounds an answer, so that its official SDKs do the right thing."""

    def error_body(self, error: ButtressError, request_id: str) -> bytes:
        """The JSON body of a failed request."""
        ...

    def error_headers(self, error: ButtressError) -> RawHeaders:
        """`Retry-After`, what is left of each limit, and whether trying again can help."""
        ...

    def limit_headers(self, requests: LimitState | None, tokens: LimitState | None) -> RawHeaders:
        """What is left of requests and tokens a minute; nothing of what is unlimited (None)."""
        ...

    def id_headers(self, request_id: str) -> RawHeaders:
        """The vendor's own name for the request's id, beside `x-request-id`."""
        ...


class Format(Protocol):
    """One kind of call, as its clients write it."""

    @property
    def endpoint(self) -> Endpoint:
        """Its name."""
        ...

    @property
    def dialect(self) -> Dialect:
        """The vendor's."""
        ...

    def parse(self, raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
        """The request that the bytes hold; header names are in lower case.

        Raises: InvalidInput, with the field's name in `details["param"]` where one is to blame.
        """
        ...

    def estimate(self, request: FormatRequest, bounds: ModelBounds) -> Estimate:
        """The most that the request can use. Raises: InvalidInput for what has no bound."""
        ...

    def check_translatable(self, request: FormatRequest) -> None:
        """Whoever answers in another protocol may have the request. Raises: InvalidInput."""
        ...

    def upstream_body(
        self, request: FormatRequest, deployment: Deployment, estimate: Estimate
    ) -> dict[str, Any]:  # Any: the client's fields pass through as they are
        """The body for a provider: its own name of the model, the clamped maximum, usage asked for."""
        ...

    def stream_reader(self, request: FormatRequest, *, held_tokens: int) -> StreamReader:
        """A reader for one answer; not one chunk more output than `held_tokens` is passed on."""
        ...

    def read_whole(self, raw: bytes) -> WholeAnswer:
        """What an answer that is not streamed used. Raises: AnswerUnusable."""
        ...
