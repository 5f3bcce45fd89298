"""What one call may use, before it is made: who may be asked, and the most that each of them could charge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.errors import InvalidInput
from llm_gateway.accounting import most_nano_usd
from llm_gateway.caller import Policy
from llm_gateway.catalog import Deployment, PublicModel
from llm_gateway.limits.estimate import Estimate, ModelBounds
from llm_gateway.routing.choose import Route
from llm_gateway.wire.format import Format, FormatRequest


@dataclass(frozen=True, slots=True)
class Hop:
    """One deployment that may be asked, and the most that it could use for this call."""

    model: PublicModel
    deployment: Deployment
    estimate: Estimate
    most_nano_usd: int = field(init=False)  # that this deployment could charge

    def __post_init__(self) -> None:
        """Raises: PriceUnknown, ServiceUnpriced."""
        most = most_nano_usd(
            self.deployment.price, self.estimate.most, unasked_service=self.deployment.unasked_service_tier
        )
        object.__setattr__(self, "most_nano_usd", most)


@dataclass(frozen=True, slots=True)
class Plan:
    """The deployments to ask, in order; none if the answer is there.

    Held for is the first; a dearer one is held for before it is asked.
    """

    hops: tuple[Hop, ...]

    @property
    def tokens(self) -> int:
        """Tokens to hold."""
        return self.hops[0].estimate.tokens if self.hops else 0

    @property
    def cost_nano_usd(self) -> int:
        """Nano-dollars to hold."""
        return self.hops[0].most_nano_usd if self.hops else 0


def plan_call(format_: Format, request: FormatRequest, routes: Sequence[Route], policy: Policy) -> Plan:
    """The plan for the request over these routes (order_routes'), clamped to what the policy allows.

    A fallback that cannot take the request is left out. Raises: InvalidInput when the asked model itself cannot.
    """
    hops: list[Hop] = []
    estimates: dict[str, Estimate] = {}
    refusal: InvalidInput | None = None
    for model, deployment in routes:
        try:
            if model.name not in estimates:
                estimates[model.name] = format_.estimate(request, _clamped(model.bounds, policy))
            estimate = estimates[model.name]
            if format_.endpoint not in deployment.native:
                format_.check_translatable(request)
                estimate = replace(estimate, service=None)  # a translation leaves `service_tier` out
            hops.append(Hop(model, deployment, estimate))
        except InvalidInput as error:
            refusal = refusal or error
    if not hops:
        raise refusal or InvalidInput("No deployment can take this request.")
    return Plan(tuple(hops))


def _clamped(bounds: ModelBounds, policy: Policy) -> ModelBounds:
    if policy.max_output_tokens is not None and policy.max_output_tokens < bounds.max_output_tokens:
        bounds = replace(bounds, max_output_tokens=policy.max_output_tokens)
    if policy.max_choices is not None and policy.max_choices < bounds.max_choices:
        bounds = replace(bounds, max_choices=policy.max_choices)
    return bounds
