"""True tokens are accepted, remembered for a while, and no change to one survives."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import NotAuthenticated
from core.tokens import CACHE_ENTRIES, CACHED_FOR_S, LEEWAY_S, Claims, TokenVerifier, bearer_token
from tests.support.token_forge import AUDIENCE, ISSUER, SECRET, USER_ID, SigningKey, claims, forge, key_set

ES256 = SigningKey("es-1", "ES256")
RS256 = SigningKey("rs-1", "RS256")


class Clock:
    """Stands still where it began, until it is put ahead."""

    def __init__(self) -> None:
        self.began_s = time.time()
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return self.began_s + self.ahead_s


def shared_secret(clock: Clock | None = None) -> TokenVerifier:
    return TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwt_secret=SECRET, clock=clock or time.time)


async def serve_keys() -> bytes:
    return key_set(ES256, RS256)


async def test_a_true_token_says_who_is_asking() -> None:
    expires_at = int(time.time()) + 60
    assert await shared_secret().verify(forge(claims(exp=expires_at))) == Claims(
        user_id=UUID(USER_ID),
        email="ada@example.com",
        role="authenticated",
        session_id="11111111-2222-4333-8444-555555555555",
        aal="aal1",
        expires_at=float(expires_at),
        is_anonymous=False,
    )


@pytest.mark.parametrize("key", [ES256, RS256], ids=["ES256", "RS256"])
async def test_a_token_of_either_key_of_a_set_is_accepted(key: SigningKey) -> None:
    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, fetch_jwks=serve_keys)
    assert (await verifier.verify(key.token())).user_id == UUID(USER_ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": ...},
        {"nbf": 1},
        {"aud": [AUDIENCE]},
        {"email": ...},
        {"email": None},
        {"session_id": ...},
        {"aal": ...},
        {"is_anonymous": ...},
        {"amr": [{"method": "password", "timestamp": 1}], "jti": "x", "x_custom": {"deep": [1.5, "é", None]}},
    ],
)
async def test_optional_claims_may_be_missing_or_more(changes: dict[str, object]) -> None:
    assert (await shared_secret().verify(forge(claims(**changes)))).aal == "aal1"


async def test_an_empty_email_is_none_and_a_second_factor_is_seen() -> None:
    found = await shared_secret().verify(forge(claims(email="", aal="aal2", is_anonymous=True)))
    assert (found.email, found.aal, found.is_anonymous) == (None, "aal2", True)


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "HS256", "typ": "jwt", "kid": "any", "x-unknown": 1}])
async def test_unknown_header_fields_and_a_legacy_kid_do_not_matter(header: dict[str, object]) -> None:
    await shared_secret().verify(forge(header=header))


async def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    clock = Clock()
    now = int(clock())
    await shared_secret(clock).verify(forge(claims(exp=now - LEEWAY_S + 1)))
    await shared_secret(clock).verify(forge(claims(iat=now + LEEWAY_S, nbf=now + LEEWAY_S)))
    assert LEEWAY_S <= 30
    for changes in ({"exp": now - LEEWAY_S}, {"iat": now + LEEWAY_S + 1}, {"nbf": now + LEEWAY_S + 1}):
        with pytest.raises(NotAuthenticated):
            await shared_secret(clock).verify(forge(claims(**changes)))


async def test_a_verified_token_is_remembered_for_a_minute_and_not_longer() -> None:
    clock, fetches = Clock(), 0

    async def fetch() -> bytes:
        nonlocal fetches
        fetches += 1
        return key_set(ES256)

    monotonic = Clock()
    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, fetch_jwks=fetch, clock=clock, monotonic=monotonic)
    token = ES256.token()
    first = await verifier.verify(token)
    monotonic.ahead_s = 10**6  # the keys are far too old by now, and nobody asks for them
    clock.ahead_s = CACHED_FOR_S - 1
    assert await verifier.verify(token) is first
    assert fetches == 1
    clock.ahead_s = CACHED_FOR_S + 1
    assert await verifier.verify(token) == first
    assert fetches == 2


async def test_a_remembered_token_still_expires_in_time() -> None:
    clock = Clock()
    verifier = shared_secret(clock)
    token = forge(claims(exp=int(time.time()) + 20))
    await verifier.verify(token)
    clock.ahead_s = 20 + LEEWAY_S + 1
    with pytest.raises(NotAuthenticated) as refusal:
        await verifier.verify(token)
    assert refusal.value.code == "token_expired"


async def test_tokens_that_share_a_long_beginning_are_two_people() -> None:
    verifier = shared_secret()
    other_id = USER_ID[:-1] + "2"
    padding = {"x": "y" * 500}
    first = {**padding, **claims()}
    second = {**padding, **claims(sub=other_id)}
    assert forge(first)[:500] == forge(second)[:500]
    assert (await verifier.verify(forge(first))).user_id == UUID(USER_ID)
    assert (await verifier.verify(forge(second))).user_id == UUID(other_id)


async def test_the_memory_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CACHE_ENTRIES <= 100_000
    monkeypatch.setattr("core.tokens.CACHE_ENTRIES", 2)
    verifier = shared_secret()
    tokens = [forge(claims(email=f"{n}@example.com")) for n in range(3)]
    remembered = [await verifier.verify(token) for token in tokens]
    assert await verifier.verify(tokens[2]) is remembered[2]
    assert await verifier.verify(tokens[0]) is not remembered[0]  # the oldest one had to go


async def test_a_refusal_is_not_remembered() -> None:
    clock = Clock()
    verifier = shared_secret(clock)
    token = forge(claims(nbf=int(time.time()) + 100))
    with pytest.raises(NotAuthenticated):
        await verifier.verify(token)
    clock.ahead_s = 100
    await verifier.verify(token)


TRUE_TOKENS = [forge(), ES256.token(), RS256.token()]


@given(data=st.data())
async def test_no_changed_token_is_accepted(data: st.DataObject) -> None:
    token = data.draw(st.sampled_from(TRUE_TOKENS))
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(
        st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=/+ !\n\0é")
    )
    kind = data.draw(st.sampled_from(["replace", "insert", "delete", "swap", "double"]))
    changed = {
        "replace": token[:position] + character + token[position + 1 :],
        "insert": token[:position] + character + token[position:],
        "delete": token[:position] + token[position + 1 :],
        "swap": token[:position] + token[position : position + 2][::-1] + token[position + 2 :],
        "double": token[:position] + token[position:] * 2,
    }[kind]
    if changed == token:
        return
    for verifier in (
        shared_secret(),
        TokenVerifier(issuer=ISSUER, audience=AUDIENCE, fetch_jwks=serve_keys),
    ):
        with pytest.raises(NotAuthenticated):
            await verifier.verify(changed)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
async def test_noise_is_refused_and_nothing_else_happens(noise: str) -> None:
    with pytest.raises(NotAuthenticated):
        await shared_secret().verify(noise)


def test_a_verifier_needs_exactly_one_way_to_check() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        TokenVerifier(issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(ValueError, match="exactly one"):
        TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwt_secret=SECRET, fetch_jwks=serve_keys)


@pytest.mark.parametrize("header", ["Bearer abc.def.ghi", "bearer abc.def.ghi", "BEARER abc.def.ghi"])
def test_the_token_of_a_bearer_header_is_found(header: str) -> None:
    assert bearer_token(header) == "abc.def.ghi"


@pytest.mark.parametrize("header", [None, ""])
def test_no_header_is_no_token(header: str | None) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        bearer_token(header)
    assert refusal.value.code == "token_missing"
    assert refusal.value.headers() == {"www-authenticate": "Bearer"}


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer  a",
        "Bearer a b",
        "Basic YTpi",
        "a.b.c",
        "Bearer a\tb",
        "Bearer a,Bearer b c",
        "Bearer é",
    ],
)
def test_any_other_header_is_refused(header: str) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        bearer_token(header)
    assert refusal.value.code == "token_invalid"
