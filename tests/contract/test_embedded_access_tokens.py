"""Access tokens carry the claims that hosted Supabase always has, however the session came to be."""

import time
from collections.abc import Awaitable, Callable

import httpx
from jose import jwt

from tests.support.callers import PASSWORD, Caller
from tests.support.embedded_supabase import EmbeddedSupabase


def verified(supabase: EmbeddedSupabase, token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        token,
        supabase.jwt_secret,
        algorithms=["HS256"],
        audience="authenticated",
        issuer=f"{supabase.supabase_url}/auth/v1",
        options={"require_exp": True, "require_aud": True, "require_iss": True, "require_sub": True},
    )
    return claims


def assert_complete(supabase: EmbeddedSupabase, session: dict[str, object], *, method: str = "password") -> None:
    claims = verified(supabase, str(session["access_token"]))
    user = session["user"]
    assert isinstance(user, dict)
    assert claims["sub"] == user["id"]
    assert claims["email"] == user["email"]
    assert claims["user_metadata"] == user["user_metadata"]
    assert (claims["role"], claims["aal"], claims["phone"], claims["is_anonymous"]) == (
        "authenticated",
        "aal1",
        "",
        False,
    )
    assert claims["session_id"]
    assert claims["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert isinstance(claims["amr"], list)
    assert [entry["method"] for entry in claims["amr"]] == [method]
    assert abs(int(str(claims["iat"])) - time.time()) < 60
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 3600


async def test_after_sign_up(
    supabase: EmbeddedSupabase, sign_up_response: Callable[..., Awaitable[httpx.Response]]
) -> None:
    assert_complete(supabase, (await sign_up_response(display_name="Ada")).json())


async def test_after_a_password_and_after_a_refresh(
    supabase: EmbeddedSupabase, anonymous: httpx.AsyncClient, person: Caller
) -> None:
    signed_in = await anonymous.post(
        "/auth/v1/token?grant_type=password", json={"email": person.email, "password": PASSWORD}
    )
    assert_complete(supabase, signed_in.json())
    refreshed = await anonymous.post(
        "/auth/v1/token?grant_type=refresh_token", json={"refresh_token": signed_in.json()["refresh_token"]}
    )
    assert_complete(supabase, refreshed.json())
    before, after = (verified(supabase, answer.json()["access_token"]) for answer in (signed_in, refreshed))
    assert before["session_id"] == after["session_id"]


async def test_auth_accepts_its_own_tokens(signed_in: httpx.AsyncClient, person: Caller) -> None:
    response = await signed_in.get("/auth/v1/user")
    assert response.status_code == 200
    assert response.json()["email"] == person.email


async def test_after_sign_out_auth_no_longer_does(
    supabase: EmbeddedSupabase, sign_up_response: Callable[..., Awaitable[httpx.Response]]
) -> None:
    session = (await sign_up_response()).json()
    async with supabase.client(token=session["access_token"]) as client:
        assert (await client.post("/auth/v1/logout")).status_code == 204
        assert (await client.get("/auth/v1/user")).status_code == 403


async def test_a_link_to_a_file_is_no_bearer_token(supabase: EmbeddedSupabase) -> None:
    claims = {"sub": "a/path", "bucket": "papers", "intent": "download", "exp": int(time.time()) + 60}
    link = jwt.encode(claims, supabase.jwt_secret)
    async with supabase.client(token=link) as client:
        assert (await client.get("/rest/v1/probe_values")).status_code == 401
