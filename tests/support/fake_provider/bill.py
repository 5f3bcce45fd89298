"""The fake provider's own bill: what it received and produced for each request, whatever a client believes."""

import asyncio
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Literal

Outcome = Literal["open", "answered", "refused", "cut", "client_gone", "no_answer"]


@dataclass(slots=True, kw_only=True)
class BillLine:
    """What one request cost. Tokens are those that the provider worked for: none when it refused.

    The prompt is worked on, and billed, from the arrival of a request that is not going to be refused. A stream that
    is cut, or left by its client, is billed up to the last chunk that was produced.
    `outcome`: open (still running), answered (all was sent), refused (an error status, before any work), cut (a
    scripted fault ended it), client_gone (the client closed the connection first), no_answer (the connection was
    broken off before work). `chunks` are the streamed events that carried output; `usage_reported` says whether the
    client was told.
    """

    number: int
    path: str
    model: str
    user: str | None
    stream: bool
    outcome: Outcome = "open"
    status: int | None = None
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    chunks: int = 0
    usage_reported: bool = False
    duration_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class SeenRequest:
    """What arrived, byte for byte (the body as text), `number` as on the bill."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def authorization(self) -> str | None:
        """The credential as it came: OpenAI's header or Anthropic's."""
        return self.headers.get("authorization") or self.headers.get("x-api-key")


@dataclass(slots=True)
class Counts:
    """How many requests arrived and ended since the last reset, and how many are held right now."""

    requests: int = 0
    closed: int = 0
    client_gone: int = 0
    held: int = 0
    chunks: int = 0
    trapped: int = 0


@dataclass(slots=True)
class _Waiter:
    wanted: dict[str, int]
    reached: asyncio.Event = field(default_factory=asyncio.Event)


class Ledger:
    """The lines of the bill (the newest `keep`), totals and counts (always whole), and who waits for them."""

    def __init__(self, keep: int) -> None:
        self.lines: deque[BillLine] = deque(maxlen=keep)
        self.seen: deque[SeenRequest] = deque(maxlen=keep)
        self.counts = Counts()
        self._totals = dict.fromkeys(("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"), 0)
        self._waiters: list[_Waiter] = []
        self._number = 0

    def reset(self) -> None:
        """Nothing was ever seen; requests still running are forgotten."""
        self.lines.clear()
        self.seen.clear()
        self.counts = Counts(held=self.counts.held)
        self._totals = dict.fromkeys(self._totals, 0)

    def open(self, *, path: str, model: str, user: str | None, stream: bool, seen: SeenRequest) -> BillLine:
        """A line for a request that has just arrived."""
        self._number += 1
        seen.number = self._number
        line = BillLine(number=self._number, path=path, model=model, user=user, stream=stream)
        self.lines.append(line)
        self.seen.append(seen)
        self.counts.requests += 1
        self.tell()
        return line

    def close(self, line: BillLine, counts_at_opening: Counts, duration_s: float) -> None:
        """The line is final; after a reset in between it counts nowhere."""
        line.duration_s = duration_s
        if counts_at_opening is not self.counts:
            return
        self.counts.closed += 1
        self.counts.client_gone += line.outcome == "client_gone"
        for name in self._totals:
            self._totals[name] += getattr(line, name)
        self.tell()

    def tell(self) -> None:
        """Whoever waits for these counts is woken."""
        for waiter in self._waiters:
            if self._reached(waiter.wanted):
                waiter.reached.set()

    def _reached(self, wanted: dict[str, int]) -> bool:
        return all(getattr(self.counts, name) >= count for name, count in wanted.items())

    async def wait(self, wanted: dict[str, int], timeout_s: float) -> bool:
        """True once every count is reached, False after the timeout."""
        if self._reached(wanted):
            return True
        waiter = _Waiter(wanted)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.reached.wait()
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)
        return True

    def as_json(self) -> dict[str, object]:
        """The bill: counts, totals of all closed requests, and the lines."""
        return {**asdict(self.counts), "totals": dict(self._totals), "lines": [asdict(line) for line in self.lines]}
