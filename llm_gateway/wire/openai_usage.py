"""What OpenAI-compatible providers say a completion used, as disjoint classes of tokens.

Source: OpenAI API reference, "usage" of chat completions; what other vendors make of it, as named below (2026-11).
"""

from __future__ import annotations

from typing import Final

from llm_gateway.accounting import TokenCounts

# Where vendors have tokens that went through a cache, beside the details that OpenAI has.
_CACHE_FIELDS: Final = ("cache_creation_input_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens")
# A figure beyond this is a provider's mistake, not somebody's usage.
MAX_REPORTED_TOKENS: Final = 1_000_000_000


def read_usage(raw: object) -> TokenCounts | None:
    """The usage object of a completion or chunk, by class; None where it is missing, null or nonsense.

    Some providers (xAI, Gemini) leave reasoning out of `completion_tokens` and have it in `total_tokens` only: what the
    total has above prompt and completion was written, too. Cache writes are where litellm and OpenRouter put them; who
    counts as Anthropic does leaves what went through the cache out of `prompt_tokens` (LL#9812, LL#15056).
    """
    if not isinstance(raw, dict):
        return None
    prompt, completion = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
    if prompt is None or completion is None or not (prompt or completion):
        return None  # noughts are no figures: no call has an empty prompt
    of_prompt, of_output = _object(raw.get("prompt_tokens_details")), _object(raw.get("completion_tokens_details"))
    if raw.get("total_tokens") == prompt + completion and not (
        any(of_prompt.values()) or any(of_output.values()) or any(map(raw.get, _CACHE_FIELDS))
    ):
        return TokenCounts(input=prompt, output=completion)  # as most answers are
    apart = sum(count(raw.get(name)) or 0 for name in ("cache_creation_input_tokens", "cache_read_input_tokens"))
    prompt += apart if apart > prompt else 0
    output = max(completion, (count(raw.get("total_tokens")) or 0) - prompt)
    write_5m, write_1h, audio_in, cached = shares(
        prompt, *_cache_writes(raw, of_prompt), of_prompt.get("audio_tokens"), _cached(raw, of_prompt)
    )
    audio_out, reasoning = shares(
        output, of_output.get("audio_tokens"), max(count(of_output.get("reasoning_tokens")) or 0, output - completion)
    )
    return TokenCounts(
        input=prompt - write_5m - write_1h - audio_in - cached,
        cached_input=cached,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        input_audio=audio_in,
        output=output - audio_out - reasoning,
        reasoning=reasoning,
        output_audio=audio_out,
    )


def shares(whole: int, *parts: object) -> list[int]:
    """What each part takes of the whole, the first ones first: together they are never more than it."""
    taken = []
    for part in parts:
        taken.append(min(count(part) or 0, whole))
        whole -= taken[-1]
    return taken


def _cached(raw: dict[str, object], of_prompt: dict[str, object]) -> object:
    """DeepSeek and Anthropic have names of their own for it."""
    given = [of_prompt.get("cached_tokens"), raw.get("prompt_cache_hit_tokens"), raw.get("cache_read_input_tokens")]
    return next((tokens for tokens in map(count, given) if tokens), 0)


def _cache_writes(raw: dict[str, object], of_prompt: dict[str, object]) -> tuple[int, int]:
    """Tokens written for five minutes and for an hour; where only the sum is given, they are the ordinary five."""
    names = ("cache_creation_tokens", "cache_write_tokens")
    given = [*(of_prompt.get(name) for name in names), raw.get("cache_creation_input_tokens")]
    written = next((tokens for tokens in map(count, given) if tokens), 0)
    by_age = _object(of_prompt.get("cache_creation_token_details"))
    hour = count(by_age.get("ephemeral_1h_input_tokens")) or 0
    return max(written - hour, count(by_age.get("ephemeral_5m_input_tokens")) or 0), hour


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def count(value: object) -> int | None:
    """A number of tokens as a provider reports it; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_REPORTED_TOKENS else None


def service_of(answer: dict[str, object]) -> str | None:
    """The service tier that the provider says it gave; it may differ from the one that was asked for."""
    service = answer.get("service_tier")
    return service.lower() if isinstance(service, str) else None
