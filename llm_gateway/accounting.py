"""What tokens cost, to the nano-dollar (1e-9 USD): integers all the way, rounded up once, at the end.

A price is a table of rates: one row for the ordinary service, more for what vendors sell beside it (flex, priority,
batch) and for long prompts, where the whole call costs the higher rates. Each class of tokens is charged once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from decimal import Decimal
from operator import attrgetter, mul
from typing import Final

from core.errors import InvalidInput

STANDARD: Final = "standard"
# What vendors call their ordinary service. `scale` and Anthropic's committed capacity are paid for in advance; a call
# there counts as the ordinary one. Source: OpenAI, Anthropic and Groq API references, "service_tier" (2026-11).
_STANDARD_NAMES: Final = frozenset(
    {None, "", "auto", "default", "on_demand", "performance", "scale", STANDARD, "standard_only"}
)

_ATTO_PER_NANO: Final = 10**9
_ATTO_USD_PER_TOKEN_AT_ONE_USD_PER_MILLION: Final = 10**12


class PriceUnknown(InvalidInput):
    """Nobody said what the model costs, so no budget could hold: the call is refused."""

    default_code = "model_price_unknown"
    default_message = "This model has no price here, so it cannot be used. Whoever runs this service can set one."


class ServiceUnpriced(InvalidInput):
    """The call asks for something that the model does, but that has no price here: no budget could hold."""

    default_code = "unsupported_content"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Tokens by class. The classes are disjoint: their sum is what the provider counted (images are pictures)."""

    input: int = 0  # fresh prompt tokens: neither read from nor written to a cache, not audio
    cached_input: int = 0  # read from the provider's cache
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    output: int = 0  # visible text and tool arguments: without reasoning and audio
    reasoning: int = 0  # billed as output
    output_audio: int = 0
    images: int = 0  # pictures made

    @property
    def prompt_tokens(self) -> int:
        """All that went in."""
        return self.input + self.cached_input + self.cache_write_5m + self.cache_write_1h + self.input_audio

    @property
    def output_tokens(self) -> int:
        """All that came out, pictures apart."""
        return self.output + self.reasoning + self.output_audio

    @property
    def total(self) -> int:
        """What counts against limits of tokens."""
        return self.prompt_tokens + self.output_tokens


CLASSES: Final = tuple(one.name for one in fields(TokenCounts))
_BY_CLASS: Final = attrgetter(*CLASSES)
# Without being asked for, a call uses no other classes than these; those of the prompt first.
_PLAIN_PROMPT: Final = frozenset({"input", "cached_input"})
_PLAIN_OUTPUT: Final = frozenset({"output", "reasoning"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one token of each class, one picture and one call cost, in atto-dollars (1e-18 USD). Zero is a price.

    None: the class has no price. Reading a cache then costs what input does, reasoning what output does, as everywhere;
    of the others a call that could use them is refused, and what is used nevertheless costs the `dearest` rate.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    input_audio: int | None = None
    reasoning: int | None = None
    output_audio: int | None = None
    images: int | None = None
    request: int = 0
    # What follows from the above, once and not for every call. `charged` is by class, in the order of CLASSES.
    unpriced: frozenset[str] = field(init=False, repr=False, compare=False)
    dearest: int = field(init=False, repr=False, compare=False)
    charged: tuple[int, ...] = field(init=False, repr=False, compare=False)
    plain_prompt: int = field(init=False, repr=False, compare=False)
    plain_output: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {name: self.of(name) for name in CLASSES}
        dearest = max(rate for name, rate in known.items() if rate is not None and name != "images")  # of a token
        # Who sells writing to a cache on request sells it by the hour, too; the others write as they see fit.
        writes_unasked = self.cache_write_5m is not None and self.cache_write_1h is None
        follows: dict[str, object] = {
            "unpriced": frozenset(name for name, rate in known.items() if rate is None),
            "dearest": dearest,
            "charged": tuple(dearest if rate is None else rate for rate in known.values()),
            "plain_prompt": self.most(_PLAIN_PROMPT | ({"cache_write_5m"} if writes_unasked else set())),
            "plain_output": self.most(_PLAIN_OUTPUT),
        }
        for name, value in follows.items():
            object.__setattr__(self, name, value)

    def of(self, name: str) -> int | None:
        """The rate of a class, as far as it is known."""
        rate: int | None = getattr(self, name)
        if rate is None and name == "cached_input":
            return self.input
        return self.output if rate is None and name == "reasoning" else rate

    def most(self, names: Iterable[str]) -> int:
        """The dearest rate of these classes, as far as they have any; zero without classes."""
        return max((self.of(name) or 0 for name in names), default=0)


@dataclass(frozen=True, slots=True)
class Tier:
    """One row of a price: what holds for this service once a prompt has more than so many tokens."""

    rates: Rates
    above_prompt_tokens: int = 0
    service: str = STANDARD

    def reached_by(self, prompt_tokens: int) -> bool:
        """True for a prompt so long."""
        return not self.above_prompt_tokens or prompt_tokens > self.above_prompt_tokens


@dataclass(frozen=True, slots=True)
class Price:
    """All that a model costs. There is always a row for the ordinary service from the first token on."""

    tiers: tuple[Tier, ...]
    _of_service: dict[str, tuple[Tier, ...]] = field(init=False, repr=False, compare=False)  # the longest prompts first

    def __post_init__(self) -> None:
        longest_first = sorted(self.tiers, key=lambda tier: -tier.above_prompt_tokens)
        services = {tier.service for tier in self.tiers}
        object.__setattr__(
            self,
            "_of_service",
            {name: tuple(tier for tier in longest_first if tier.service == name) for name in services},
        )

    def sells(self, service: str | None) -> bool:
        """True when calls of this service tier (a vendor's word for it) have a price."""
        return service in _STANDARD_NAMES or service in self._of_service

    def rates(self, service: str | None, prompt_tokens: int) -> Rates:
        """What holds for a call. A service without a price, which nobody can have asked for, costs the dearest one."""
        if not self.sells(service):
            reached = (tier.rates for tier in self.tiers if tier.reached_by(prompt_tokens))
            return max(reached, key=lambda rates: rates.dearest)
        for tier in self._of_service[_name_of(service)]:
            if tier.reached_by(prompt_tokens):
                return tier.rates
        raise AssertionError("a price begins with the first token")

    def possible(self, services: Iterable[str | None], prompt_tokens: int) -> list[Rates]:
        """All that may hold for a call in one of these services whose prompt has at most so many tokens."""
        return [
            tier.rates
            for name in {_name_of(service) for service in services}
            for tier in self._of_service[name]
            if tier.reached_by(prompt_tokens)
        ]


def _name_of(service: str | None) -> str:
    return STANDARD if service is None or service in _STANDARD_NAMES else service


def cost_nano_usd(price: Price | None, counts: TokenCounts, *, service: str | None = None) -> int:
    """What these tokens cost in the service that the provider says it gave.

    Raises: PriceUnknown without a price; ValueError for a negative count.
    """
    if price is None:
        raise PriceUnknown
    used: tuple[int, ...] = _BY_CLASS(counts)
    if min(used) < 0:
        raise ValueError("Token counts are never negative.")
    rates = price.rates(service, counts.prompt_tokens)
    atto_usd: int = sum(map(mul, used, rates.charged), start=rates.request)
    return -(-atto_usd // _ATTO_PER_NANO)


def unpriced(price: Price, counts: TokenCounts, *, service: str | None = None) -> list[str]:
    """The classes that occur and have no rate; cost_nano_usd charges them at the dearest one there is."""
    rates = price.rates(service, counts.prompt_tokens)
    missing = [name for name in CLASSES if name in rates.unpriced and getattr(counts, name)]
    return missing if price.sells(service) else [*missing, f"service {service}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Most:
    """The most that a call can use: tokens, the classes that can occur beyond the ordinary ones, and what it asks for.

    `audio_tokens` come on top of `prompt_tokens`. `classes` are names out of TokenCounts, each with the field of the
    request that brings it in, for the sentence that refuses it.
    """

    prompt_tokens: int
    output_tokens: int
    audio_tokens: int = 0
    classes: tuple[tuple[str, str], ...] = ()
    service: str | None = None


def may_be_given(asked: str | None, unasked_service: str | None) -> set[str | None]:
    """The services that a call may get: the ordinary one, what it asks for, and what the account gets unasked."""
    return {None, asked, unasked_service if asked in {None, "auto"} else None}


def most_nano_usd(price: Price | None, most: Most, *, unasked_service: str | None = None) -> int:
    """What to hold: no call within these bounds costs more. `unasked_service` is what a call gets that names none.

    Raises: PriceUnknown without a price; ServiceUnpriced for what has none.
    """
    if price is None:
        raise PriceUnknown
    asked = may_be_given(most.service, unasked_service)
    for service in asked:
        if not price.sells(service):
            raise ServiceUnpriced(
                "This service tier has no price for this model here: leave out `service_tier`.",
                details={"param": "service_tier"},
            )
    all_tokens = most.prompt_tokens + most.audio_tokens
    atto_usd = max(_most_atto_usd(rates, most) for rates in price.possible(asked, all_tokens))
    return -(-atto_usd // _ATTO_PER_NANO)


_UNPRICED_WORDS: Final = {
    "cache_write_5m": "Writing to the provider's cache",
    "cache_write_1h": "Writing to the provider's cache for an hour",
    "input_audio": "Audio input",
    "output_audio": "Audio output",
}


def _most_atto_usd(rates: Rates, most: Most) -> int:
    prompt, output, audio = rates.plain_prompt, rates.plain_output, rates.plain_prompt
    for name, param in most.classes:
        if name in rates.unpriced:
            raise ServiceUnpriced(
                f"{_UNPRICED_WORDS[name]} has no price for this model here: leave out `{param}`.",
                details={"param": param},
            )
        if name == "output_audio":
            output = max(output, rates.most([name]))
            continue
        audio = max(audio, rates.most([name]))
        if name != "input_audio":
            prompt = max(prompt, rates.most([name]))
    return most.prompt_tokens * prompt + most.audio_tokens * audio + most.output_tokens * output + rates.request


def atto_usd_per_token(usd_per_million: Decimal) -> int:
    """The published price of a million tokens, for one of them.

    Raises: ValueError for a negative price and for more than twelve decimals.
    """
    atto_usd = usd_per_million * _ATTO_USD_PER_TOKEN_AT_ONE_USD_PER_MILLION
    if not atto_usd.is_finite() or atto_usd < 0 or atto_usd != atto_usd.to_integral_value():
        raise ValueError(
            f"A price is zero or more USD per million tokens, of at most twelve decimals: {usd_per_million}"
        )
    return int(atto_usd)
