"""Whether a call wants an answer that was given before, and how old it may be."""

from __future__ import annotations

import re
from typing import Final

from core.errors import InvalidInput

HEADER: Final = b"x-buttress-cache"
MAX_AGE_S: Final = 7 * 24 * 3600

_WISH: Final = re.compile(r"\s*(?:(no-store|no-cache)|max-age=([0-9]{1,7}))\s*", re.IGNORECASE)


def wished_age_s(header: str | None, of_model_s: int | None) -> int | None:
    """The most seconds an answer may be old, at most a week; None where every answer is to be a new one.

    What the request says comes before what models.toml says of the model (`cache_ttl_s`).
    Raises: InvalidInput for a header that is neither `max-age=<seconds>` nor `no-store`.
    """
    if header is None:
        return of_model_s or None
    wish = _WISH.fullmatch(header)
    if wish is None:
        raise InvalidInput(
            "`x-buttress-cache` takes `max-age=<seconds>` (a week at most), or `no-store`.",
            code="invalid_cache_header",
            details={"param": "x-buttress-cache"},
        )
    return min(int(wish[2] or 0), MAX_AGE_S) or None
