"""Prices as they are given: litellm's price file, models.toml, and both together.

The file is read without importing litellm, which costs seconds and 190 MB. It comes with the installed package: a price
changes when the lock file does, and never by itself. Its numbers are dollars a token; `_above_200k_tokens` is what the
whole call costs once its prompt is longer than that, `_flex`, `_priority` and `_batches` are service tiers,
`_above_1hr` is the cache that lasts an hour. Source: the file of litellm and its entry `sample_spec`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

import orjson

from llm_gateway.accounting import STANDARD, Price, Rates, Tier

_FILE: Final = "model_prices_and_context_window_backup.json"
_ATTO: Final = 10**18

_CLASS_OF_FIELD: Final = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_request": "request",
}
_FIELD: Final = re.compile(r"(.+?)(?:_above_(\d+)k_tokens)?(?:_([a-z]+))?")
_SERVICES: Final[Mapping[str | None, str]] = {None: STANDARD, "batches": "batch"}


class PriceNotFound(LookupError):
    """Nobody says what the model costs, or not all of it; the message is the end of a sentence about it."""


class RateTable:
    """Rates in the making: what is said for a service and a length of the prompt; later words replace earlier ones."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], dict[str, int]] = {(STANDARD, 0): {}}

    def set(self, name: str, atto_usd: int, *, service: str = STANDARD, above_prompt_tokens: int = 0) -> None:
        """The rate of a class, of a picture or of a call."""
        self._rows.setdefault((service, above_prompt_tokens), {})[name] = atto_usd

    def multiply(self, factor: Decimal) -> None:
        """Every rate is so many times as high, rounded up: what a region costs more, say."""
        exact = Fraction(factor)
        for row in self._rows.values():
            row.update({name: _times(rate, exact) for name, rate in row.items()})

    def price(self) -> Price:
        """The price that all this is. Raises: PriceNotFound without a rate for input and output."""
        missing = [name for name in ("input", "output") if name not in self._rows[STANDARD, 0]]
        if missing:
            raise PriceNotFound(f"nobody says what a token of {' and of '.join(missing)} costs")
        services, lengths = ({row[0] for row in self._rows}, {row[1] for row in self._rows})
        return Price(
            tuple(
                Tier(Rates(**self._row(service, above)), above, service)
                for service in sorted(services)
                for above in sorted(lengths)
            )
        )

    def _row(self, service: str, above: int) -> dict[str, int]:
        """What was said, and what follows: vendors give a service or a length one factor and leave out what is clear.

        What is left out costs as many times the ordinary rate as input does, and never less than that rate; reasoning
        as many times as output does (LL#35925, langsmith-sdk#2615: it was billed at the ordinary rate).
        """
        ordinary = self._rows[STANDARD, 0]
        said = self._rows.get((service, above), {})
        factor = Fraction(1)
        if ordinary["input"]:
            factor = max(Fraction(self._input(service, above), ordinary["input"]), factor)
        follows = {name: _times(rate, factor) for name, rate in ordinary.items()}
        if "reasoning" in ordinary and "output" in said and ordinary["output"]:
            follows["reasoning"] = _times(ordinary["reasoning"], Fraction(said["output"], ordinary["output"]))
        return follows | said

    def _input(self, service: str, above: int) -> int:
        """The rate of input; where it was not said, a service has the same factor for every length."""
        said = self._rows.get((service, above), {}).get("input")
        if said is not None:
            return said
        if service == STANDARD:
            shorter = [length for name, length in self._rows if name == STANDARD and length < above]
            return self._input(STANDARD, max(shorter))
        ordinary = self._rows[STANDARD, 0]["input"]
        at_first = self._rows.get((service, 0), {}).get("input", ordinary)
        return _times(self._input(STANDARD, above), max(Fraction(at_first, ordinary), Fraction(1)))


def _times(rate: int, factor: Fraction) -> int:
    return -(-rate * factor.numerator // factor.denominator)


class PriceFile:
    """litellm's file, read once and when it is first needed. For use at start, not for a call."""

    def __init__(self, entries: Mapping[str, object] | None = None) -> None:
        self._entries = entries

    def names(self) -> list[str]:
        """Every name in the file."""
        return list(self._read())

    def find(self, name: str) -> RateTable:
        """The rates under exactly this name. Raises: PriceNotFound."""
        entry = self._read().get(name)
        if not isinstance(entry, dict):
            raise PriceNotFound(f"litellm's price file has no `{name}`")
        return _table(entry)

    def find_for(self, provider: str, model: str) -> RateTable:
        """The rates of a provider's model: of `provider/model`, or of `model` where that is the provider's.

        Raises: PriceNotFound.
        """
        for name in (f"{provider}/{model}", model):
            entry = self._read().get(name)
            if isinstance(entry, dict) and _belongs_to(entry, provider):
                return _table(entry)
        raise PriceNotFound(f"litellm's price file has no `{provider}/{model}`")

    def _read(self) -> Mapping[str, object]:
        if self._entries is None:
            found = find_spec("litellm")
            places = found.submodule_search_locations if found else None
            if not places:
                raise PriceNotFound("litellm, whose price file may say, is not installed")
            self._entries = cast("dict[str, object]", orjson.loads((Path(places[0]) / _FILE).read_bytes()))
        return self._entries


def _belongs_to(entry: Mapping[str, object], provider: str) -> bool:
    """`bedrock_converse` is Bedrock, `vertex_ai-anthropic_models` is Vertex AI."""
    owner = str(entry.get("litellm_provider"))
    return owner == provider or owner.startswith((f"{provider}_", f"{provider}-"))


def _table(entry: Mapping[str, object]) -> RateTable:
    """A nought in the file is not believed, because it often means that nobody knows: who means it says so himself."""
    table = RateTable()
    for name, usd, service, above in _rates_in(entry):
        if usd != 0:
            table.set(name, _atto_usd(usd), service=service, above_prompt_tokens=above)
    if entry.get("mode") == "embedding":
        table.set("output", 0)  # there is none
    return table


def _rates_in(entry: Mapping[str, object]) -> Iterator[tuple[str, object, str, int]]:
    """Class, dollars, service, length of the prompt: of everything in the entry that a call of ours can use."""
    for field, usd in entry.items():
        found = None if field in _CLASS_OF_FIELD else _FIELD.fullmatch(field)
        base, thousands, service = (found[1], found[2], found[3]) if found else (field, None, None)
        if base in _CLASS_OF_FIELD:
            yield _CLASS_OF_FIELD[base], usd, _SERVICES.get(service) or str(service), int(thousands or 0) * 1000
    if entry.get("mode") == "image_generation":
        yield "images", entry.get("output_cost_per_image", 0), STANDARD, 0
    steps = entry.get("tiered_pricing")
    for step in steps if isinstance(steps, list) else []:
        for field in _CLASS_OF_FIELD.keys() & step.keys():
            yield _CLASS_OF_FIELD[field], step[field], STANDARD, int(step["range"][0])


def _atto_usd(usd: object) -> int:
    """Exactly what was published, which is the shortest decimal of the number; finer than an atto-dollar goes up.

    Raises: PriceNotFound for what is no price.
    """
    price = Decimal(repr(usd)) if isinstance(usd, int | float) and not isinstance(usd, bool) else Decimal(-1)
    if not price.is_finite() or price < 0:
        raise PriceNotFound(f"litellm's price file says {usd!r}, which is no price")
    return int((price * _ATTO).to_integral_value(rounding=ROUND_CEILING))
