"""The issuer's keys: rotated, cached, kept through an outage, and fetched no more often than promised."""

from __future__ import annotations

import asyncio
import itertools
import json

import anyio
import pytest
from aiohttp import web

from core import jwks
from core.errors import NotAuthenticated, Unavailable
from core.http import make_http_client
from core.jwks import (
    FRESH_FOR_S,
    MAX_SET_BYTES,
    REFETCH_PAUSE_S,
    STALE_FOR_S,
    JwksUnusable,
    http_fetcher,
    parse_key_set,
)
from core.settings import load_settings
from core.tokens import TokenVerifier
from tests.support.local_http import Handler, serving
from tests.support.stack import free_ports
from tests.support.token_forge import AUDIENCE, ISSUER, SECRET, SigningKey, b64, claims, forge, key_set

OLD = SigningKey("old", "ES256")
NEW = SigningKey("new", "ES256")
RSA = SigningKey("rsa", "RS256")


class Issuer:
    """An issuer whose key set can change, vanish, break or hang; and the clock that everybody looks at."""

    def __init__(self, *keys: SigningKey) -> None:
        self.answer: bytes | None = key_set(*keys)
        self.fetches = 0
        self.now_s = 1000.0
        self.hanging: asyncio.Event | None = None

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.hanging is not None:
            await self.hanging.wait()
        if self.answer is None:
            raise JwksUnusable("down")
        return self.answer

    def verifier(self) -> TokenVerifier:
        return TokenVerifier(issuer=ISSUER, audience=AUDIENCE, fetch_jwks=self.fetch, monotonic=lambda: self.now_s)


serial = itertools.count()


async def is_accepted(verifier: TokenVerifier, key: SigningKey) -> bool:
    """Whether a token of this key passes; a new one each time, since verified ones are remembered."""
    try:
        await verifier.verify(key.token(claims(jti=str(next(serial)))))
    except NotAuthenticated:
        return False
    return True


async def test_the_key_set_is_fetched_once_for_many_tokens() -> None:
    issuer = Issuer(OLD, NEW)
    verifier = issuer.verifier()
    for key in (OLD, NEW, OLD, NEW):
        assert await is_accepted(verifier, key)
    assert issuer.fetches == 1


async def test_nothing_is_fetched_before_a_token_comes() -> None:
    issuer = Issuer(OLD)
    issuer.verifier()
    assert issuer.fetches == 0


async def test_a_new_key_is_accepted_within_a_minute_of_being_served() -> None:
    issuer = Issuer(OLD)
    verifier = issuer.verifier()
    assert await is_accepted(verifier, OLD)
    issuer.answer = key_set(OLD, NEW)
    issuer.now_s += REFETCH_PAUSE_S - 1
    assert not await is_accepted(verifier, NEW)
    issuer.now_s += 2
    assert await is_accepted(verifier, NEW)
    assert await is_accepted(verifier, OLD)
    assert issuer.fetches == 2


async def test_a_removed_key_is_refused_after_ten_minutes_even_for_remembered_tokens() -> None:
    issuer = Issuer(OLD, NEW)
    verifier = issuer.verifier()
    token = OLD.token()
    await verifier.verify(token)
    issuer.answer = key_set(NEW)
    issuer.now_s += FRESH_FOR_S + 1
    assert await is_accepted(verifier, NEW)  # somebody's request brings the news
    with pytest.raises(NotAuthenticated):
        await verifier.verify(token)


async def test_a_key_replaced_under_its_kid_counts_as_changed() -> None:
    issuer = Issuer(OLD)
    verifier = issuer.verifier()
    token = OLD.token()
    await verifier.verify(token)
    issuer.answer = key_set(SigningKey("old", "ES256"))
    issuer.now_s += FRESH_FOR_S + 1
    assert not await is_accepted(verifier, OLD)
    with pytest.raises(NotAuthenticated):
        await verifier.verify(token)


async def test_a_flood_of_unknown_kids_causes_one_fetch_in_thirty_seconds() -> None:
    issuer = Issuer(OLD)
    verifier = issuer.verifier()
    assert await is_accepted(verifier, OLD)
    token = OLD.token()
    for _ in range(3):
        issuer.now_s += REFETCH_PAUSE_S
        before = issuer.fetches
        async with anyio.create_task_group() as flood:
            for n in range(500):
                flood.start_soon(_refused, verifier, OLD.token(kid=f"unknown-{n}"))
        assert issuer.fetches == before + 1
    await verifier.verify(token)


async def test_many_first_tokens_at_once_cause_one_fetch() -> None:
    issuer = Issuer(OLD)
    issuer.hanging = asyncio.Event()
    verifier = issuer.verifier()
    async with anyio.create_task_group() as crowd:
        for n in range(200):
            crowd.start_soon(verifier.verify, OLD.token(claims(jti=str(n))))
        await anyio.wait_all_tasks_blocked()
        issuer.hanging.set()
    assert issuer.fetches == 1


async def test_whoever_hangs_up_does_not_take_the_fetch_from_the_others() -> None:
    issuer = Issuer(OLD)
    issuer.hanging = asyncio.Event()
    verifier = issuer.verifier()
    first = asyncio.create_task(verifier.verify(OLD.token(claims(jti="1"))))
    await asyncio.sleep(0)
    second = asyncio.create_task(verifier.verify(OLD.token(claims(jti="2"))))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    issuer.hanging.set()
    await second
    assert issuer.fetches == 1


async def test_without_any_key_the_answer_is_503_and_heals_when_the_issuer_is_back() -> None:
    issuer = Issuer(OLD)
    served, issuer.answer = issuer.answer, None
    verifier = issuer.verifier()
    for _ in range(3):
        with pytest.raises(Unavailable) as outage:
            await verifier.verify(OLD.token())
        assert outage.value.code == "auth_unavailable"
        assert outage.value.retry_after_s
    assert issuer.fetches == 1  # the others failed fast
    issuer.answer = served
    issuer.now_s += 2
    assert await is_accepted(verifier, OLD)


async def test_known_keys_serve_for_an_hour_of_outage_and_no_longer() -> None:
    issuer = Issuer(OLD)
    verifier = issuer.verifier()
    assert await is_accepted(verifier, OLD)
    issuer.answer = None
    issuer.now_s += FRESH_FOR_S + 1
    for _ in range(5):
        assert await is_accepted(verifier, OLD)
    assert issuer.fetches == 2  # one attempt for all five
    issuer.now_s += STALE_FOR_S - 10
    assert await is_accepted(verifier, OLD)
    issuer.now_s += 20
    with pytest.raises(Unavailable):
        await verifier.verify(OLD.token(claims(jti="late")))


@pytest.mark.parametrize(
    "rubbish", [b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b"\xff", b"[" * 9999]
)
async def test_an_answer_that_is_no_key_set_counts_as_an_outage(rubbish: bytes) -> None:
    issuer = Issuer(OLD)
    verifier = issuer.verifier()
    assert await is_accepted(verifier, OLD)
    issuer.answer = rubbish
    issuer.now_s += FRESH_FOR_S + 1
    assert await is_accepted(verifier, OLD)


async def test_a_slow_issuer_delays_a_known_key_by_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "SLOW_FETCH_S", 0.01)
    issuer = Issuer(OLD)
    verifier = issuer.verifier()
    assert await is_accepted(verifier, OLD)
    issuer.now_s += FRESH_FOR_S + 1
    issuer.hanging = asyncio.Event()
    assert await is_accepted(verifier, OLD)
    issuer.hanging.set()


async def test_an_issuer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 0.01)
    issuer = Issuer(OLD)
    issuer.hanging = asyncio.Event()
    with pytest.raises(Unavailable):
        await issuer.verifier().verify(OLD.token())


def test_only_public_signing_keys_with_their_own_kid_are_trusted() -> None:
    weak = SigningKey("weak", "RS256", rsa_bits=1024)
    good = key_set(
        OLD,
        RSA,
        {"kty": "oct", "kid": "oct", "k": b64(SECRET.encode()), "alg": "HS256"},
        {**NEW.jwk, "kid": "encryption", "use": "enc"},
        {**NEW.jwk, "kid": "no-verify", "key_ops": ["sign"]},
        {**NEW.jwk, "kid": "ops-text", "key_ops": "verify"},
        {**NEW.jwk, "kid": "private", "d": "AAAA"},
        {**NEW.jwk, "kid": "wrong-alg", "alg": "RS256"},
        {**NEW.jwk, "kid": "wrong-curve", "crv": "P-384"},
        {**NEW.jwk, "kid": "off-curve", "x": b64(b"\1" * 32)},
        {**NEW.jwk, "kid": "not-base64", "x": "é"},
        {**NEW.jwk, "kid": "number", "x": 5},
        {**RSA.jwk, "kid": "rsa-number", "n": 5},
        {"kty": "EC", "crv": "P-256", "kid": "no-point"},
        {"kty": "RSA", "kid": "no-modulus"},
        {**NEW.jwk, "kid": "../x"},
        {**NEW.jwk, "kid": 5},
        {name: value for name, value in NEW.jwk.items() if name != "kid"},
        {**NEW.jwk, "kid": "twice"},
        {**RSA.jwk, "kid": "twice"},
        weak,
    )
    assert sorted(parse_key_set(good)) == ["old", "rsa"]


def test_a_minimal_key_has_the_algorithm_of_its_type() -> None:
    minimal = {name: value for name, value in OLD.jwk.items() if name in {"kty", "crv", "x", "y", "kid"}}
    assert parse_key_set(key_set(minimal))["old"].algorithm == "ES256"


def test_a_key_set_of_hundreds_is_refused() -> None:
    with pytest.raises(JwksUnusable):
        parse_key_set(key_set(*({**OLD.jwk, "kid": f"k{n}"} for n in range(33))))


async def fetched(handler: Handler) -> bytes:
    async with serving(handler) as url, make_http_client() as http:
        return await http_fetcher(http, url)()


async def test_a_key_set_is_fetched_over_http() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=key_set(OLD))

    assert json.loads(await fetched(handler)) == json.loads(key_set(OLD))


async def test_no_more_than_64_kib_are_read() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 16384)
        except ConnectionResetError:
            return response

    with pytest.raises(JwksUnusable, match="too large"):
        await fetched(handler)
    assert MAX_SET_BYTES == 65536


@pytest.mark.parametrize("status", [204, 301, 302, 404, 500, 503])
async def test_any_other_status_than_200_is_refused_and_redirects_are_not_followed(status: int) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/jwks.json"})

    with pytest.raises(JwksUnusable, match=str(status)):
        await fetched(handler)


async def test_a_refused_connection_is_an_outage() -> None:
    async with make_http_client() as http:
        with pytest.raises(JwksUnusable, match="ConnectError"):
            await http_fetcher(http, f"http://127.0.0.1:{free_ports(1)[0]}")()


async def test_settings_decide_how_tokens_are_checked() -> None:
    environ = {
        "BUTTRESS_SUPABASE_URL": ISSUER.removesuffix("/auth/v1"),
        "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
        "BUTTRESS_GATEWAY_DATABASE_URL": "postgresql://u:p@127.0.0.1/db",
        "BUTTRESS_KEY_PEPPER": "x" * 32,
    }

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=key_set(OLD))

    async with make_http_client() as http, serving(handler) as url:
        secret = TokenVerifier.from_settings(load_settings({**environ, "BUTTRESS_JWT_SECRET": SECRET}), http)
        await secret.verify(forge())
        asymmetric = TokenVerifier.from_settings(load_settings({**environ, "BUTTRESS_JWKS_URL": url}), http)
        await asymmetric.verify(OLD.token())


async def _refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(NotAuthenticated):
        await verifier.verify(token)
