"""The flood guard, on a clock that stands still until told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.flood import FloodGuard
from core.errors import TooManyRequests


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_it_admits_the_burst_and_then_one_each_refill() -> None:
    clock = Clock()
    guard = FloodGuard(burst=3, refill_s=6, clock_s=clock)
    for _ in range(3):
        guard.admit("k")
    with pytest.raises(TooManyRequests) as refused:
        guard.admit("k")
    assert refused.value.retry_after_s == 6
    clock.now_s += 6
    guard.admit("k")
    with pytest.raises(TooManyRequests):
        guard.admit("k")


def test_a_refused_attempt_does_not_prolong_the_wait() -> None:
    clock = Clock()
    guard = FloodGuard(burst=1, refill_s=6, clock_s=clock)
    guard.admit("k")
    for _ in range(100):
        with pytest.raises(TooManyRequests) as refused:
            guard.admit("k")
        assert refused.value.retry_after_s == 6


def test_keys_do_not_share_and_a_forgiven_attempt_does_not_count() -> None:
    guard = FloodGuard(burst=1, refill_s=6, clock_s=Clock())
    guard.admit("a")
    guard.admit("b")
    guard.forgive("a")
    guard.admit("a")
    guard.forgive("never seen")
    with pytest.raises(TooManyRequests):
        guard.admit("b")


def test_its_memory_is_bounded_and_the_quietest_is_forgotten_first() -> None:
    guard = FloodGuard(burst=1, refill_s=6, max_keys=2, clock_s=Clock())
    for key in ("a", "b", "c"):
        guard.admit(key)
    assert len(guard) == 2
    guard.admit("a")
    with pytest.raises(TooManyRequests):
        guard.admit("c")


@given(st.lists(st.floats(min_value=0, max_value=20), max_size=50), st.integers(1, 5), st.floats(0.5, 10))
def test_no_window_admits_more_than_the_burst_and_the_refills(pauses: list[float], burst: int, refill_s: float) -> None:
    clock = Clock()
    guard = FloodGuard(burst=burst, refill_s=refill_s, clock_s=clock)
    admitted_at_s: list[float] = []
    for pause_s in pauses:
        clock.now_s += pause_s
        try:
            guard.admit("k")
        except TooManyRequests:
            continue
        admitted_at_s.append(clock.now_s)
    for first in range(len(admitted_at_s)):
        for last in range(first, len(admitted_at_s)):
            window_s = admitted_at_s[last] - admitted_at_s[first]
            assert last - first + 1 <= burst + window_s / refill_s + 1e-6
