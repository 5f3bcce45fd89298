"""Headers of our own, and what headers are to an ASGI server."""

from __future__ import annotations

RawHeaders = list[tuple[bytes, bytes]]


def usd(nano_usd: int) -> bytes:
    """Nano-dollars as a decimal number of dollars, exact and without an exponent: `0.000150000`."""
    dollars, rest = divmod(nano_usd, 1_000_000_000)
    return b"%d.%09d" % (dollars, rest)
