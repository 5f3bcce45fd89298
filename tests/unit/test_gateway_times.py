"""The times of the environment are kept, or the process says at start which one cannot be."""

import pytest

from llm_gateway.times import Times, TimesInvalid


def test_what_is_not_said_is_as_documented() -> None:
    assert Times.from_environment({"BUTTRESS_GATEWAY_GRACE_S": ""}) == Times(lease=120, lame_duck=0, grace=20)


def test_renewal_and_reaper_follow_the_lease() -> None:
    times = Times.from_environment({"BUTTRESS_GATEWAY_LEASE_S": "4"})
    assert (times.lease, times.renew_every, times.reap_every) == (4, 1, 1)
    assert Times().reap_every == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("LEASE_S", "1.9"), ("LEASE_S", "3601"), ("GRACE_S", "-1"), ("GRACE_S", "soon"), ("LAME_DUCK_S", "nan")],
)
def test_a_time_that_is_none_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(TimesInvalid, match=f"BUTTRESS_GATEWAY_{name} must be a number of seconds .* it is '{value}'"):
        Times.from_environment({f"BUTTRESS_GATEWAY_{name}": value})


def test_a_stop_that_would_outlast_the_servers_patience_is_refused_with_the_sum() -> None:
    Times().require_stop_within(30)
    Times(lame_duck=5, grace=15).require_stop_within(30)
    with pytest.raises(TimesInvalid, match="a stop would take 34 s, and the server kills after 30 s"):
        Times(lame_duck=5).require_stop_within(30)
