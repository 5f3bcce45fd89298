"""Somebody who calls, and what they may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.errors import NotAllowed


class ModelNotAllowed(NotAllowed):
    """The plan, the key or the workspace does not include this model."""

    default_code = "model_not_allowed"


class EndpointNotAllowed(NotAllowed):
    """The key does not include this endpoint."""

    default_code = "endpoint_not_allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the plan, the key and the workspace allow together. None: nothing of this is restricted.

    Endpoints: chat, responses, embeddings, messages, count_tokens, models. Models by their public names.
    `redact`: personal data is taken out of what goes to a provider, `redact_answers`: out of what comes back.
    `store_content`: prompts and answers may be kept.
    """

    models: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    max_output_tokens: int | None = None
    max_choices: int | None = None
    redact: bool = False
    redact_answers: bool = False
    store_content: bool = False

    def allows_model(self, name: str) -> bool:
        """Whether the model may answer, asked for or as a fallback."""
        return self.models is None or name in self.models

    def require_model(self, name: str) -> None:
        """Raises: ModelNotAllowed."""
        if not self.allows_model(name):
            raise ModelNotAllowed(f"You may not use the model {name}.", details={"param": "model"})

    def require_endpoint(self, endpoint: str) -> None:
        """Raises: EndpointNotAllowed."""
        if self.endpoints is not None and endpoint not in self.endpoints:
            raise EndpointNotAllowed(f"This API key may not use the endpoint {endpoint}.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose limits a call is charged to: the user's always, the key's and the workspace's where there is one."""

    user_id: UUID
    key_id: UUID | None = None
    workspace_id: UUID | None = None
    policy: Policy = Policy()
