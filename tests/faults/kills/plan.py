"""What is going to happen, drawn from a seed before anything does."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

Kill = Literal[
    "gateway killed",
    "gateway told to stop",
    "clients gone",
    "backends terminated",
    "database cut off",
    "database silent",
    "postgres killed",
]
Point = Literal[
    "before the hold",
    "hold sent",
    "provider asked",
    "before the first chunk",
    "between chunks",
    "after the last chunk",
    "before the settlement",
    "settlement sent",
]
POINTS: tuple[Point, ...] = get_args(Point)
AT_THE_DATABASE: frozenset[Point] = frozenset(
    ("before the hold", "hold sent", "before the settlement", "settlement sent")
)
GATEWAYS = 2
PEOPLE = 4
FOCUS, BESIDE = 8, 8
# Of each forty kills; in every forty all of them, in an order of their own.
_SHARES: dict[Kill, int] = {
    "gateway killed": 11,
    "gateway told to stop": 10,
    "clients gone": 9,
    "backends terminated": 3,
    "database cut off": 3,
    "database silent": 3,
    "postgres killed": 1,
}
_LONGER_THAN_A_DEADLINE_S = 1.2  # of the ledger's


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call. `pause_at`: the chunk after which the provider waits; -1: before its headers; None: it does not."""

    person: int
    by_key: bool
    endpoint: Literal["chat", "messages"]
    stream: bool
    gateway: int
    output_tokens: int
    pause_at: int | None
    leaves: bool


@dataclass(frozen=True, slots=True)
class Round:
    """One kill. The calls in focus are brought to `point` and no further; those beside wait at points of their own.

    `late`: what was kept from a gateway that was killed arrives all the same, and a provider goes on only after the
    grace period of a gateway that was told to stop.
    """

    number: int
    kill: Kill
    point: Point
    victim: int
    focus: tuple[CallPlan, ...]
    beside: tuple[CallPlan, ...]
    late: bool
    away_s: float


def draw(seed: int, kills: int) -> list[Round]:
    """The same for the same seed; kinds and points each come up evenly."""
    chance = random.Random(seed)
    kinds: list[Kill] = []
    points: list[Point] = []
    while len(kinds) < kills:
        block = [kill for kill, share in _SHARES.items() for _ in range(share)]
        kinds += chance.sample(block, len(block))
    while len(points) < kills:
        points += chance.sample(POINTS, len(POINTS))
    return [_round(chance, number, kinds[number], points[number]) for number in range(kills)]


def draw_one_of_each(seed: int) -> list[Round]:
    """A round for each kind of kill, and more, so that each point is met too."""
    chance = random.Random(seed)
    kinds: list[Kill] = [*_SHARES, "gateway killed", "gateway told to stop", "gateway killed", "clients gone"]
    points = chance.sample(POINTS, len(POINTS)) + chance.sample(POINTS, len(POINTS))
    return [_round(chance, number, kind, points[number]) for number, kind in enumerate(kinds)]


def _round(chance: random.Random, number: int, kill: Kill, point: Point) -> Round:
    victim = chance.randrange(GATEWAYS)
    focus = tuple(_focus_call(chance, point, victim) for _ in range(FOCUS))
    return Round(
        number=number,
        kill=kill,
        point=point,
        victim=victim,
        focus=focus,
        beside=tuple(_beside_call(chance) for _ in range(BESIDE)),
        late=chance.random() < 0.5,
        away_s=chance.choice((0.0, _LONGER_THAN_A_DEADLINE_S)),
    )


def _focus_call(chance: random.Random, point: Point, victim: int) -> CallPlan:
    output_tokens = chance.randint(3, 12)
    pauses: dict[Point, int | None] = {
        "before the hold": None,
        "hold sent": None,
        "provider asked": -1,
        "before the first chunk": 0,
        "between chunks": chance.randint(1, output_tokens - 1),
        "after the last chunk": output_tokens,
        "before the settlement": chance.randint(1, output_tokens - 1),
        "settlement sent": chance.randint(1, output_tokens - 1),
    }
    return _call(chance, victim if point in AT_THE_DATABASE else None, output_tokens, pauses[point])


def _beside_call(chance: random.Random) -> CallPlan:
    output_tokens = chance.randint(3, 12)
    return _call(chance, None, output_tokens, chance.randint(-1, output_tokens))


def _call(chance: random.Random, gateway: int | None, output_tokens: int, pause_at: int | None) -> CallPlan:
    stream = chance.random() < 0.7
    return CallPlan(
        person=chance.randrange(PEOPLE),
        by_key=chance.random() < 0.5,
        endpoint=chance.choice(("chat", "messages")),
        stream=stream,
        gateway=chance.randrange(GATEWAYS) if gateway is None else gateway,
        output_tokens=output_tokens,
        # a whole answer has one moment only: asked, and not yet answered
        pause_at=pause_at if stream or pause_at is None else -1,
        leaves=chance.random() < 0.6,
    )
