"""API keys as such: enough chance in them, recognised by their own pepper only, and by all of their characters."""

import re
from collections.abc import Callable
from hashlib import sha256
from statistics import median
from time import perf_counter_ns

import pytest

from llm_gateway.keys import RANDOM_BITS, KeyRing, is_key

RING = KeyRing("a pepper of at least thirty-two characters")


def test_a_key_is_one_word_of_a_known_shape_with_160_random_bits() -> None:
    key = RING.make()
    assert re.fullmatch(r"bt_live_[0-9A-Za-z]{33}", key.secret)
    assert is_key(key.secret)
    assert RANDOM_BITS == 160
    assert 2**RANDOM_BITS < 62**27
    assert len({RING.make().secret[8:20] for _ in range(1000)}) == 1000


def test_what_is_kept_is_a_digest_from_which_the_key_does_not_follow() -> None:
    key = RING.make()
    assert RING.recognise(key.secret) == key.digest
    assert len(key.digest) == 32
    assert key.digest != sha256(key.secret.encode()).digest()
    assert key.hint == f"bt_live_…{key.secret[-4:]}"
    assert key.secret not in repr(key)


def test_a_key_of_another_pepper_is_unknown() -> None:
    assert KeyRing("another pepper of thirty-two characters").recognise(RING.make().secret) is None


def test_a_pepper_is_replaced_while_its_keys_live_on() -> None:
    """Salts that can never be replaced: BerriAI/litellm#12448."""
    old, new = "the old pepper of thirty-two characters", "the new pepper of thirty-two characters"
    ring_before = KeyRing(old)
    key = ring_before.make()
    steps = [KeyRing(old, [new]), KeyRing(new, [old])]
    for ring in steps:
        assert ring.recognise(key.secret) == key.digest
        made = ring.make()
        assert [step.recognise(made.secret) for step in steps] == [made.digest] * 2  # also while processes differ
        assert ring.recognise(key.secret[:-1] + ("a" if key.secret[-1] != "a" else "b")) is None
    assert KeyRing(new).recognise(key.secret) is None  # and then it is over
    assert ring_before.recognise(steps[1].make().secret) is None


def test_each_character_counts() -> None:
    """What two keys have in common at their beginning makes neither of them the other (CVE-2026-35030)."""
    secret = RING.make().secret
    for position in range(len("bt_live_"), len(secret)):
        other = "a" if secret[position] != "a" else "b"
        assert RING.recognise(secret[:position] + other + secret[position + 1 :]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret[:-1],
        lambda secret: secret + "0",
        lambda secret: secret + "\n",
        lambda secret: " " + secret,
        lambda secret: secret.upper(),
        lambda secret: secret.replace("bt_live_", "bt_test_"),
        lambda secret: RING.make().digest.hex(),
        lambda secret: f"bt_live_{RING.make().digest.hex()}",
        lambda secret: "bt_live_' or '1'='1",
        lambda secret: "bt_live_" + "\x00" * 33,
        lambda secret: "bt_live_" + "é" * 33,
        lambda secret: "bt_live_" + "٣" * 33,
        lambda secret: "bt_live_" + "0" * 33,
        lambda secret: "bt_live_" + "x" * 10_000,
        lambda secret: "",
    ],
)
def test_what_is_not_exactly_a_key_is_none(change: Callable[[str], str]) -> None:
    assert RING.recognise(change(RING.make().secret)) is None


def test_how_long_a_refusal_takes_does_not_tell_how_much_of_a_key_was_right() -> None:
    """One wrong character at the end against wrong ones all over: pair by pair, so that a busy machine slows both."""
    true = RING.make().secret
    near = true[:-1] + ("a" if true[-1] != "a" else "b")
    took_ns: dict[str, list[int]] = {near: [], "bt_live_" + "0" * 33: []}
    for _ in range(5000):
        for secret, times in took_ns.items():
            began_ns = perf_counter_ns()
            RING.recognise(secret)
            times.append(perf_counter_ns() - began_ns)
    near_ns, far_ns = took_ns.values()
    assert abs(median(map(int.__sub__, near_ns, far_ns))) < 0.1 * median(near_ns)
