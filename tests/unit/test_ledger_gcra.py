"""One rate by itself: whatever comes, never more than the limit, and never a wait longer than needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.limits.gcra import LATEST_TAT_NS, MILLISECOND_NS, MINUTE_NS, Rate, rounded_up, unit_ns

NOW_NS = 1_800_000_000_000_000_000
LIMITS = st.integers(1, 10**9)
DELAYS_NS = st.integers(0, 2 * MINUTE_NS)


def rate_at(now_ns: int, limit: int, used: int = 0) -> Rate:
    rate = Rate()
    rate.catch_up(now_ns, limit)
    rate.charge(used)
    return rate


@given(dividend=st.integers(), divisor=st.integers(1))
def test_rounding_up_is_the_smallest_whole_number_not_below(dividend: int, divisor: int) -> None:
    result = rounded_up(dividend, divisor)
    assert (result - 1) * divisor < dividend <= result * divisor


@given(limit=LIMITS)
def test_a_minute_refills_the_limit_and_never_more(limit: int) -> None:
    assert MINUTE_NS // unit_ns(limit) <= limit
    assert unit_ns(limit) - 1 < MINUTE_NS / limit


@given(limit=LIMITS, units=st.integers(0, 10**9 + 1))
def test_exactly_the_limit_fits_at_once(limit: int, units: int) -> None:
    rate = rate_at(NOW_NS, limit)
    assert rate.wait_ms(NOW_NS, units) == (0 if units <= limit else None)
    assert rate.remaining(NOW_NS) == limit
    assert rate.reset_ms(NOW_NS) == 0


@given(limit=LIMITS, data=st.data())
def test_what_was_refused_fits_after_exactly_the_wait_it_was_told(limit: int, data: st.DataObject) -> None:
    rate = rate_at(NOW_NS, limit, data.draw(st.integers(0, limit)))
    units = data.draw(st.integers(0, limit))
    wait_ms = rate.wait_ms(NOW_NS, units)
    assert wait_ms is not None
    later_ns = NOW_NS + wait_ms * MILLISECOND_NS
    rate.catch_up(later_ns, limit)
    assert rate.wait_ms(later_ns, units) == 0
    if wait_ms > 0:
        assert rate_before(rate, later_ns - MILLISECOND_NS, units) > 0


def rate_before(rate: Rate, now_ns: int, units: int) -> int:
    """The wait a millisecond earlier, for a rate that had not caught up past its tat."""
    wait_ms = Rate(rate.tat_ns, rate.limit, in_force=True).wait_ms(now_ns, units)
    assert wait_ms is not None
    return wait_ms


@given(limit=LIMITS, units=st.integers(0, 10**9))
def test_remaining_is_the_most_that_fits(limit: int, units: int) -> None:
    rate = rate_at(NOW_NS, limit, min(units, limit))
    remaining = rate.remaining(NOW_NS)
    assert rate.wait_ms(NOW_NS, remaining) == 0
    assert rate.wait_ms(NOW_NS, remaining + 1) != 0


@given(
    limit=st.integers(1, 200),
    arrivals=st.lists(st.tuples(DELAYS_NS, st.integers(1, 50), st.booleans()), max_size=40),
)
def test_in_no_window_does_more_pass_than_the_limit_and_its_refill(
    limit: int, arrivals: list[tuple[int, int, bool]]
) -> None:
    """Counted window by window, from each call to each later one, without any bucket."""
    rate, now_ns, passed = Rate(), NOW_NS, list[tuple[int, int]]()
    for delay_ns, units, gives_half_back in arrivals:
        now_ns += delay_ns
        rate.catch_up(now_ns, limit)
        if rate.wait_ms(now_ns, units) != 0:
            continue
        end_ns = rate.charge(units)
        if gives_half_back:
            rate.give_back(now_ns, units // 2, end_ns)
        passed.append((now_ns, units - (units // 2 if gives_half_back else 0)))
    for first, (begin_ns, _) in enumerate(passed):
        inside = 0
        for end_ns, units in passed[first:]:
            inside += units
            assert inside * unit_ns(limit) <= limit * unit_ns(limit) + (end_ns - begin_ns)


@given(limit=LIMITS, other=LIMITS, data=st.data())
def test_an_edit_keeps_what_was_used(limit: int, other: int, data: st.DataObject) -> None:
    used = data.draw(st.integers(0, limit))
    rate = rate_at(NOW_NS, limit, used)
    rate.catch_up(NOW_NS, other)
    assert rate.remaining(NOW_NS) == max(0, other - used)


@given(limit=LIMITS, delay_ns=DELAYS_NS, data=st.data())
def test_what_is_given_back_is_never_more_than_was_taken_and_not_yet_refilled(
    limit: int, delay_ns: int, data: st.DataObject
) -> None:
    before, mine = data.draw(st.integers(0, limit)), data.draw(st.integers(0, limit))
    rate = rate_at(NOW_NS, limit, before)
    without_ns = rate.tat_ns
    end_ns = rate.charge(mine)
    rate.give_back(NOW_NS + delay_ns, data.draw(st.integers(0, mine)), end_ns)
    assert rate.tat_ns >= min(without_ns, end_ns)
    assert rate.tat_ns >= min(NOW_NS + delay_ns, end_ns)


@given(limit=LIMITS, more=st.integers(0, 10**10))
def test_debt_is_waited_for_and_ends_before_the_clock_does(limit: int, more: int) -> None:
    rate = rate_at(NOW_NS, limit, limit)
    rate.owe(NOW_NS, more)
    assert rate.tat_ns == min(NOW_NS + (limit + more) * unit_ns(limit), LATEST_TAT_NS)


@given(used=st.integers(0, 1000))
def test_without_a_limit_nothing_waits_and_what_was_kept_before_stays(used: int) -> None:
    rate = rate_at(NOW_NS, 1000, used)
    tat_ns = rate.tat_ns
    rate.catch_up(NOW_NS, None)
    assert rate.wait_ms(NOW_NS, 10**9) == 0
    assert rate.charge(10**9) == 0
    assert rate.tat_ns == tat_ns
    rate.catch_up(NOW_NS, 1000)
    assert rate.remaining(NOW_NS) == 1000 - used


def test_a_rate_that_never_had_a_limit_has_nothing_to_give_back_and_owes_nothing() -> None:
    rate = Rate()
    rate.catch_up(NOW_NS, None)
    rate.owe(NOW_NS, 100)
    rate.give_back(NOW_NS, 100, NOW_NS + MINUTE_NS)
    assert (rate.tat_ns, rate.returned_ns) == (0, 0)
