"""What the pipeline needs of a provider, whatever protocol it speaks: bytes in the client's format, honest failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from llm_gateway.catalog import Deployment

if TYPE_CHECKING:
    from llm_gateway.accounting import TokenCounts
    from llm_gateway.wire.format import Endpoint


class FailureKind(Enum):
    """Why a provider gave no answer that can be passed on."""

    UNREACHABLE = "unreachable"  # no connection: nothing was asked
    RATE_LIMITED = "rate_limited"  # 429
    OVERLOADED = "overloaded"  # 503, 529
    BROKEN = "broken"  # any other 5xx, and what no provider should send (a redirect, say)
    REJECTED = "rejected"  # 400, 413, 422 …: the caller's request is at fault
    UNTRANSLATABLE = "untranslatable"  # the request cannot be put into the provider's words: nothing was asked
    CREDENTIAL = "credential"  # 401, 403: ours is
    MODEL_MISSING = "model_missing"  # 404: the catalogue is
    LOST = "lost"  # the connection broke after the request was sent
    TIMED_OUT = "timed_out"
    UNUSABLE = "unusable"  # 200, and not what was agreed


# Refused before any work was done: costs nothing, and another deployment may be asked instead.
_NO_WORK = frozenset(
    {
        FailureKind.UNREACHABLE,
        FailureKind.RATE_LIMITED,
        FailureKind.OVERLOADED,
        FailureKind.BROKEN,
        FailureKind.REJECTED,
        FailureKind.UNTRANSLATABLE,
        FailureKind.CREDENTIAL,
        FailureKind.MODEL_MISSING,
    }
)

# Whoever is asked, the answer is the same.
_REQUESTS_OWN_FAULT = frozenset({FailureKind.REJECTED, FailureKind.UNTRANSLATABLE})


@dataclass
class ProviderFailure(Exception):
    """The provider failed. Nothing in here came from its answer but numbers and words we know, so it may be logged.

    `code` and `param` are OpenAI's for a rejected request, where the provider's are among those we know.
    """

    kind: FailureKind
    status: int | None = None
    retry_after_s: float | None = None
    code: str | None = None
    param: str | None = None

    @property
    def work_was_refused(self) -> bool:
        """True when the provider surely did no work; then the call costs nothing."""
        return self.kind in _NO_WORK

    @property
    def may_ask_another(self) -> bool:
        """True when somebody else, or the same a moment later, may well answer, and asking twice is paid once."""
        return self.work_was_refused and self.kind not in _REQUESTS_OWN_FAULT


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One attempt: this body, in the format of this endpoint, to this deployment.

    `call_id` is told to providers that note it. `headers` are the format's own, checked.
    """

    deployment: Deployment
    endpoint: Endpoint
    body: dict[str, Any]  # Any: the client's fields pass through as they are
    stream: bool
    call_id: str
    headers: Mapping[str, str] = field(default_factory=dict)


class ProviderAnswer(Protocol):
    """An answer that has begun (status 200), in the format of the call's endpoint."""

    async def read(self) -> bytes:
        """The next piece of the body, cut anywhere; empty at its end. Raises: ProviderFailure (LOST)."""
        ...

    def unread(self) -> bytes:
        """What has come of the body by now and was not read, as far as that is known; nothing the second time."""
        ...

    def abort(self) -> None:
        """The provider's connection is being closed, at once; harmless after the end and more than once."""
        ...

    def reported(self) -> TokenCounts | None:
        """What the provider has said so far of its use without its standing in the bytes that were read; or None."""
        ...


class Provider(Protocol):
    """Somebody who answers calls."""

    async def ready(self) -> None:
        """Whatever takes long and is needed once is there; its time is not the deployment's."""
        ...

    async def open(self, call: ProviderCall) -> ProviderAnswer:
        """The answer, from its status 200 on. Cancelling it closes the connection. Raises: ProviderFailure."""
        ...


@dataclass(frozen=True, slots=True)
class Providers:
    """Who reaches a deployment: `native` where it speaks the client's format itself, `translating` everywhere else.

    `counting` answers count_tokens where the deployment does not.
    """

    native: Provider
    translating: Provider
    counting: Provider

    def of(self, deployment: Deployment, endpoint: Endpoint) -> Provider:
        """The one for this deployment and a call of this endpoint."""
        if endpoint in deployment.native:
            return self.native
        return self.counting if endpoint == "count_tokens" else self.translating
