"""A token is refused for each of these reasons, with one answer for all but expiry, and without any lookup."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from core.errors import NotAuthenticated
from core.tokens import MAX_TOKEN_CHARS, TokenVerifier
from tests.support.token_forge import (
    AUDIENCE,
    ISSUER,
    SECRET,
    USER_ID,
    SigningKey,
    b64,
    claims,
    forge,
    hs256,
    key_set,
)

NOW = int(time.time())
ES256 = SigningKey("es-1", "ES256")
RS256 = SigningKey("rs-1", "RS256")
STRANGER = SigningKey("es-1", "ES256")  # the same kid, another key


def altered(token: str, *, index: int, to: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[index] = to(parts[index])
    return ".".join(parts)


def without_signing(header: bytes, payload: bytes, signature: bytes = b"") -> str:
    return f"{b64(header)}.{b64(payload)}.{b64(signature)}"


def json_claims(text: str) -> bytes:
    """The claims as JSON, with `text` (more JSON members) before them: for what json.dumps cannot write."""
    return ("{" + text + "," + json.dumps(claims())[1:]).encode()


def signed_by_public_key(key: SigningKey) -> str:
    """The classic confusion: HMAC keyed with what everybody can read."""
    signing_input = forge(header={"alg": "HS256", "typ": "JWT", "kid": key.kid}).rpartition(".")[0]
    return f"{signing_input}.{b64(hs256(signing_input.encode(), json.dumps(key.jwk)))}"


# What is wrong -> a token for a verifier with a shared secret (HS256).
BAD_FOR_SECRET: dict[str, str] = {
    # shape
    "a word": "hello",
    "a dot": ".",
    "two dots": "..",
    "two segments": forge().rpartition(".")[0],
    "four segments": forge() + ".e30",
    "five segments (an encrypted token)": "e30.e30.e30.e30.e30",
    "an empty header": altered(forge(), index=0, to=lambda _: ""),
    "an empty payload": altered(forge(), index=1, to=lambda _: ""),
    "an empty signature": altered(forge(), index=2, to=lambda _: ""),
    "a leading space": " " + forge(),
    "a trailing line feed": forge() + "\n",
    "a line feed inside": altered(forge(), index=1, to=lambda part: part[:5] + "\n" + part[5:]),
    "a NUL character": forge() + "\0",
    "letters outside ASCII": forge() + "é",
    "an emoji": "🙂." + forge(),
    "a lone surrogate": forge() + "\ud800",
    "padding": forge() + "=",
    "the other base64 alphabet": altered(
        forge(signature=b"\xff" * 32), index=2, to=lambda part: part.replace("_", "/")
    ),
    "characters that lax decoders skip": altered(forge(), index=2, to=lambda part: part[:3] + "!" + part[3:]),
    "spare bits in the signature's last character": altered(
        forge(signature=b"\0" * 32), index=2, to=lambda part: part[:-1] + "B"
    ),
    "spare bits on a true signature": altered(forge(), index=2, to=lambda part: part[:-1] + chr(ord(part[-1]) + 1)),
    "a segment of an impossible length": "abcde." + forge().partition(".")[2],
    "more than 8192 characters": forge(claims(user_metadata={"x": "y" * MAX_TOKEN_CHARS})),
    "a megabyte": "a" * 2**20,
    "the scheme left on": "Bearer " + forge(),
    "a Supabase secret key": "sb_secret_abcdefghijklmnopqrstuv_wxyz",
    "SQL": "' or 1=1 --",
    # header
    "a header that is no JSON": forge(header=b"alg=HS256"),
    "a header that is a list": forge(header=b'["HS256"]'),
    "a header that is null": forge(header=b"null"),
    "a header in UTF-16": forge(header='{"alg":"HS256"}'.encode("utf-16")),
    "a header that nests 1000 deep": forge(header=b'{"alg":"HS256","x":' + b"[" * 1000 + b"]" * 1000 + b"}"),
    "a header with alg twice": forge(header=b'{"alg":"none","alg":"HS256"}'),
    "no alg": forge(header={"typ": "JWT"}),
    "alg none, unsigned": without_signing(b'{"alg":"none"}', json.dumps(claims()).encode()),
    "alg none, signed": forge(header={"alg": "none"}),
    "alg None, in capitals": forge(header={"alg": "NONE"}),
    "alg empty": forge(header={"alg": ""}),
    "alg null": forge(header={"alg": None}),
    "alg a number": forge(header={"alg": 256}),
    "alg a list": forge(header={"alg": ["HS256"]}),
    "alg an object": forge(header={"alg": {"HS256": 1}}),
    "alg in lower case": forge(header={"alg": "hs256"}),
    "alg HS512": forge(header={"alg": "HS512"}),
    "alg RS256": forge(header={"alg": "RS256"}),
    "alg ES256": forge(header={"alg": "ES256"}),
    "typ of something else": forge(header={"alg": "HS256", "typ": "JOSE"}),
    "typ a list": forge(header={"alg": "HS256", "typ": ["JWT"]}),
    "crit, empty": forge(header={"alg": "HS256", "crit": []}),
    "crit of an unknown extension": forge(header={"alg": "HS256", "crit": ["x"], "x": 1}),
    "crit b64, unencoded payload": forge(header={"alg": "HS256", "b64": False, "crit": ["b64"]}),
    "jku": forge(header={"alg": "HS256", "jku": "https://evil.example/keys"}),
    "jwk": forge(header={"alg": "HS256", "jwk": {"kty": "oct", "k": b64(SECRET.encode())}}),
    "x5u": forge(header={"alg": "HS256", "x5u": "https://evil.example/cert"}),
    "x5c": forge(header={"alg": "HS256", "x5c": ["MIIB"]}),
    "zip": forge(header={"alg": "HS256", "zip": "DEF"}),
    "a kid that is a path": forge(header={"alg": "HS256", "kid": "../../../../dev/null"}),
    "a kid that is SQL": forge(header={"alg": "HS256", "kid": "x' union select 'key"}),
    "a kid that is a number": forge(header={"alg": "HS256", "kid": 1}),
    "a kid of 4000 characters": forge(header={"alg": "HS256", "kid": "k" * 4000}),
    # signature
    "another secret": forge(secret="another-secret-of-more-than-32-characters"),
    "an empty secret": forge(secret=""),
    "a signature of zeros": forge(signature=b"\0" * 32),
    "half a signature": altered(forge(), index=2, to=lambda part: part[:22]),
    "another token's signature": altered(
        forge(claims(role="service_role")), index=2, to=lambda _: forge().rpartition(".")[2]
    ),
    "another token's payload": altered(forge(), index=1, to=lambda _: forge(claims(email="eve@x.org")).split(".")[1]),
    "HS512 under an HS256 header": forge(signature=b"\1" * 64),
    # payload
    "a payload that is no JSON": forge(b"sub=1"),
    "a payload that is a list": forge(b"[]"),
    "a payload that is a text": forge(b'"claims"'),
    "a payload in invalid UTF-8": forge(b'{"sub":"\xff"}'),
    "a payload with a NUL": forge(claims(email="a\0b")),
    "a payload that nests 1000 deep": forge(json_claims('"x":' + "[" * 1000 + "]" * 1000)),
    "sub twice": forge(json_claims(f'"sub":"{USER_ID}"')),
    "exp twice": forge(json_claims('"exp":1')),
    # times
    "no exp": forge(claims(exp=...)),
    "exp null": forge(claims(exp=None)),
    "exp a text": forge(claims(exp=str(NOW + 3600))),
    "exp a float": forge(claims(exp=NOW + 3600.5)),
    "nbf a whole float": forge(claims(nbf=1.0)),
    "exp true": forge(claims(exp=True)),
    "exp a list": forge(claims(exp=[NOW + 3600])),
    "exp NaN": forge(claims(exp=float("nan"))),
    "exp Infinity": forge(claims(exp=float("inf"))),
    "exp 1e999": forge(json.dumps(claims(exp=...))[:-1].encode() + b',"exp":1e999}'),
    "exp of 10,000 digits": forge(json.dumps(claims(exp=...))[:-1].encode() + b',"exp":' + b"9" * 5000 + b"}"),
    "exp beyond 2^53": forge(claims(exp=2**53)),
    "exp zero": forge(claims(exp=0)),
    "exp negative": forge(claims(exp=-1)),
    "nbf an hour ahead": forge(claims(nbf=NOW + 3600)),
    "nbf a text": forge(claims(nbf="0")),
    "nbf null": forge(claims(nbf=None)),
    "iat an hour ahead": forge(claims(iat=NOW + 3600)),
    "iat a text": forge(claims(iat="now")),
    "iat a float": forge(claims(iat=NOW - 0.5)),
    "iat null": forge(claims(iat=None)),
    # who and for whom
    "no aud": forge(claims(aud=...)),
    "aud empty": forge(claims(aud="")),
    "aud of somebody else": forge(claims(aud="other")),
    "aud an empty list": forge(claims(aud=[])),
    "aud a list with others": forge(claims(aud=[AUDIENCE, "other"])),
    "aud a list in a list": forge(claims(aud=[[AUDIENCE]])),
    "aud null": forge(claims(aud=None)),
    "aud that begins like ours": forge(claims(aud=AUDIENCE + "-2")),
    "no iss": forge(claims(iss=...)),
    "iss of another project": forge(claims(iss="https://other.supabase.co/auth/v1")),
    "iss with a slash more": forge(claims(iss=ISSUER + "/")),
    "iss a list": forge(claims(iss=[ISSUER])),
    "iss null": forge(claims(iss=None)),
    "no sub": forge(claims(sub=...)),
    "sub empty": forge(claims(sub="")),
    "sub null": forge(claims(sub=None)),
    "sub a number": forge(claims(sub=1)),
    "sub no UUID": forge(claims(sub="admin")),
    "sub in capitals": forge(claims(sub=USER_ID.upper())),
    "sub in braces": forge(claims(sub="{" + USER_ID + "}")),
    "sub without hyphens": forge(claims(sub=USER_ID.replace("-", ""))),
    "no role": forge(claims(role=...)),
    "role null": forge(claims(role=None)),
    "role anon (the legacy public key)": forge(claims(role="anon")),
    "role service_role (the legacy secret key)": forge(claims(role="service_role")),
    "role a list": forge(claims(role=["authenticated"])),
    "role in capitals": forge(claims(role="Authenticated")),
    "the legacy anon key as it is": forge({"iss": "supabase", "ref": "x", "role": "anon", "iat": 1, "exp": NOW + 9999}),
    "an OpenID id token": forge({"iss": ISSUER, "aud": "client-id", "sub": USER_ID, "exp": NOW + 99, "nonce": "n"}),
    "email a number": forge(claims(email=1)),
    "session_id an object": forge(claims(session_id={})),
    "aal a number": forge(claims(aal=2)),
    "is_anonymous a text": forge(claims(is_anonymous="false")),
}

# What is wrong -> a token for a verifier with a key set of one ES256 and one RS256 key.
BAD_FOR_KEY_SET: dict[str, str] = {
    "HS256 keyed with the public EC key": signed_by_public_key(ES256),
    "HS256 keyed with the public RSA key": signed_by_public_key(RS256),
    "HS256 with a shared secret": forge(header={"alg": "HS256", "kid": "es-1"}),
    "alg none": without_signing(b'{"alg":"none","kid":"es-1"}', json.dumps(claims()).encode()),
    "no kid": ES256.token(kid=...),
    "kid null": ES256.token(kid=None),
    "kid empty": ES256.token(kid=""),
    "kid of the other key": ES256.token(kid="rs-1"),
    "an unknown kid": ES256.token(kid="es-2"),
    "kid a path": ES256.token(kid="../../es-1"),
    "kid a URL": ES256.token(kid="https://evil.example/keys#es-1"),
    "kid an object": ES256.token(kid={"es-1": 1}),
    "alg of the other key": ES256.token(alg="RS256"),
    "alg ES384": ES256.token(alg="ES384"),
    "alg PS256": RS256.token(alg="PS256"),
    "alg RS512": RS256.token(alg="RS512"),
    "a stranger's key under our kid": STRANGER.token(),
    "a stranger's key in the header": STRANGER.token(jwk=STRANGER.jwk),
    "an EC signature in DER": altered(ES256.token(), index=2, to=lambda _: b64(b"\x30\x44" + b"\x02\x20" + b"\1" * 66)),
    "an EC signature of zeros": altered(ES256.token(), index=2, to=lambda _: b64(b"\0" * 64)),
    "an EC signature cut short": altered(ES256.token(), index=2, to=lambda part: part[:40]),
    "an RSA signature of ones": altered(RS256.token(), index=2, to=lambda _: b64(b"\1" * 256)),
    "an expired iat and a true signature, but the wrong audience": RS256.token(claims(aud="other")),
    "role service_role": ES256.token(claims(role="service_role")),
}


@pytest.mark.parametrize("token", BAD_FOR_SECRET.values(), ids=BAD_FOR_SECRET.keys())
async def test_shared_secret_refuses(token: str) -> None:
    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwt_secret=SECRET)
    with pytest.raises(NotAuthenticated) as refusal:
        await verifier.verify(token)
    assert (refusal.value.code, refusal.value.status) == ("token_invalid", 401)
    assert refusal.value.message == "The access token is not valid. Sign in again."


@pytest.mark.parametrize("token", BAD_FOR_KEY_SET.values(), ids=BAD_FOR_KEY_SET.keys())
async def test_key_set_refuses(token: str) -> None:
    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, fetch_jwks=_serve_keys)
    with pytest.raises(NotAuthenticated) as refusal:
        await verifier.verify(token)
    assert (refusal.value.code, refusal.value.status) == ("token_invalid", 401)


@pytest.mark.parametrize("token", BAD_FOR_SECRET.values(), ids=BAD_FOR_SECRET.keys())
async def test_what_is_no_token_of_a_known_key_causes_no_fetch(token: str) -> None:
    async def fetch() -> bytes:
        raise AssertionError("fetched the key set")

    with pytest.raises(NotAuthenticated):
        await TokenVerifier(issuer=ISSUER, audience=AUDIENCE, fetch_jwks=fetch).verify(token)


async def test_no_token_is_told_apart_from_a_bad_one() -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        await TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwt_secret=SECRET).verify("")
    assert refusal.value.code == "token_missing"


@pytest.mark.parametrize("late_s", [11, 60, 3600, 10**8])
async def test_an_expired_token_is_told_so_only_when_everything_else_is_right(late_s: int) -> None:
    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, jwt_secret=SECRET)
    with pytest.raises(NotAuthenticated) as refusal:
        await verifier.verify(forge(claims(exp=NOW - late_s)))
    assert refusal.value.code == "token_expired"
    for forged in (forge(claims(exp=NOW - late_s), secret="x" * 32), forge(claims(exp=NOW - late_s, aud="other"))):
        with pytest.raises(NotAuthenticated) as refusal:
            await verifier.verify(forged)
        assert refusal.value.code == "token_invalid"


def test_there_are_more_than_sixty_reasons() -> None:
    assert len(BAD_FOR_SECRET) + len(BAD_FOR_KEY_SET) >= 60


async def _serve_keys() -> bytes:
    return key_set(ES256, RS256)
