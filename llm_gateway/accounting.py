"""What tokens cost, to the nano-dollar (1e-9 USD): integers all the way, rounded up once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from core.errors import InvalidInput

_ATTO_PER_NANO: Final = 10**9
_ATTO_USD_PER_TOKEN_AT_ONE_USD_PER_MILLION: Final = 10**12


class PriceUnknown(InvalidInput):
    """Nobody said what the model costs, so no budget could hold: the call is refused."""

    default_code = "model_price_unknown"
    default_message = "This model has no price here, so it cannot be used. Whoever runs this service can set one."


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


@dataclass(frozen=True, slots=True)
class Price:
    """What one token of each class costs, in atto-dollars (1e-18 USD): published prices are whole numbers of those.

    Zero is a price. The classes are disjoint: an input token read from the provider's cache is charged as cached only.
    """

    input_atto_usd: int
    cached_input_atto_usd: int
    output_atto_usd: int

    @classmethod
    def from_usd_per_million(cls, *, input: Decimal, output: Decimal, cached_input: Decimal | None = None) -> Price:  # noqa: A002 (the price list's own word)
        """The price as vendors publish it, exactly. Cached input costs what input does unless it has its own price.

        Raises: ValueError for a negative price and for more than twelve decimals.
        """
        return cls(
            input_atto_usd=_atto_usd_per_token(input),
            cached_input_atto_usd=_atto_usd_per_token(input if cached_input is None else cached_input),
            output_atto_usd=_atto_usd_per_token(output),
        )


def cost_nano_usd(price: Price | None, *, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> int:
    """What these tokens cost. `input_tokens` leaves out the cached ones.

    Raises: PriceUnknown without a price; ValueError for a negative count.
    """
    if price is None:
        raise PriceUnknown
    if min(input_tokens, cached_input_tokens, output_tokens) < 0:
        raise ValueError("Token counts are never negative.")
    atto_usd = (
        input_tokens * price.input_atto_usd
        + cached_input_tokens * price.cached_input_atto_usd
        + output_tokens * price.output_atto_usd
    )
    return -(-atto_usd // _ATTO_PER_NANO)


def most_nano_usd(price: Price | None, *, prompt_tokens: int, output_tokens: int) -> int:
    """What to hold: no call with at most so many tokens costs more, whether its prompt is cached or not.

    Raises: as cost_nano_usd.
    """
    if price is not None and price.cached_input_atto_usd > price.input_atto_usd:
        return cost_nano_usd(price, input_tokens=0, cached_input_tokens=prompt_tokens, output_tokens=output_tokens)
    return cost_nano_usd(price, input_tokens=prompt_tokens, output_tokens=output_tokens)


def _atto_usd_per_token(usd_per_million: Decimal) -> int:
    atto_usd = usd_per_million * _ATTO_USD_PER_TOKEN_AT_ONE_USD_PER_MILLION
    if not atto_usd.is_finite() or atto_usd < 0 or atto_usd != atto_usd.to_integral_value():
        raise ValueError(
            f"A price is zero or more USD per million tokens, of at most twelve decimals: {usd_per_million}"
        )
    return int(atto_usd)
