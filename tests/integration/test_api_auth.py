"""Accounts and sessions over real HTTP and the real Auth."""

import asyncio
import time
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_server import ApiServer, api_server_on
from tests.support.callers import PASSWORD, Caller, make_team, mint_token, new_caller
from tests.support.fake_provider import FakeProvider
from tests.support.stack import RunningStack


def new_email() -> str:
    return f"{uuid4().hex}@example.com"


async def sign_up(api: httpx.AsyncClient, email: str | None = None) -> tuple[str, dict[str, str]]:
    """A new account's e-mail address, and its session's two tokens."""
    email = email or new_email()
    response = await api.post("/v1/auth/sign-up", json={"email": email, "password": PASSWORD})
    assert response.status_code == 201, response.text
    session = response.json()["data"]["session"]
    return email, {"access": session["access_token"], "refresh": session["refresh_token"]}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_signing_up_makes_an_account_a_profile_and_a_personal_workspace(api_server: ApiServer) -> None:
    async with api_as(api_server) as api:
        body = {"email": f" {new_email().upper()} ", "password": PASSWORD, "display_name": "Ann"}
        made = await api.post("/v1/auth/sign-up", json=body)
        assert made.headers["location"] == "/v1/me"
        data = made.json()["data"]
        assert data["confirmation_required"] is False
        session = data["session"]
        assert session["token_type"] == "bearer"
        assert session["expires_in_s"] > 0
        headers = bearer(session["access_token"])
        me = (await api.get("/v1/me", headers=headers)).json()["data"]
        assert (me["display_name"], me["email"]) == ("Ann", body["email"].strip().lower())
        listing = (await api.get("/v1/workspaces", headers=headers)).json()
        assert [workspace["is_personal"] for workspace in listing["data"]] == [True]


async def test_signing_in_gives_a_session_of_its_own(api_server: ApiServer) -> None:
    async with api_as(api_server) as api:
        email, first = await sign_up(api)
        signed_in = await api.post("/v1/auth/sign-in", json={"email": email, "password": PASSWORD})
        assert signed_in.status_code == 200
        second = signed_in.json()["data"]["access_token"]
        ids = [
            (await api.get("/v1/auth/session", headers=bearer(token))).json()["data"]["session_id"]
            for token in (first["access"], second)
        ]
        assert len(set(ids)) == 2


async def test_an_unknown_account_and_a_wrong_password_get_the_same_answer_and_about_as_late(
    api_server: ApiServer,
) -> None:
    async with api_as(api_server) as api:
        known, _ = await sign_up(api)
        answers, durations_s = [], []
        for email in (known, new_email(), known, new_email()):
            started_s = time.monotonic()
            response = await api.post("/v1/auth/sign-in", json={"email": email, "password": "Wrong-horse-9"})
            durations_s.append(time.monotonic() - started_s)
            assert refusal(response) == (401, "invalid_credentials")
            error = response.json()["error"]
            error.pop("request_id")
            answers.append((error, sorted(response.headers)))
        assert all(answer == answers[0] for answer in answers)
        assert min(durations_s) >= 0.25  # each waits until both kinds have had time


async def test_a_taken_address_a_weak_password_and_an_odd_address_are_told_apart(api_server: ApiServer) -> None:
    async with api_as(api_server) as api:
        email, _ = await sign_up(api)
        taken = await api.post("/v1/auth/sign-up", json={"email": email, "password": PASSWORD})
        weak = await api.post("/v1/auth/sign-up", json={"email": new_email(), "password": "short1"})
        assert refusal(taken) == (409, "email_taken")
        assert refusal(weak) == (422, "weak_password")


async def test_a_refresh_token_works_once_and_gives_the_next_one(api_server: ApiServer) -> None:
    async with api_as(api_server) as api:
        _, tokens = await sign_up(api)
        refreshed = await api.post("/v1/auth/refresh", json={"refresh_token": tokens["refresh"]})
        assert refreshed.status_code == 200
        next_tokens = refreshed.json()["data"]
        assert next_tokens["refresh_token"] != tokens["refresh"]
        assert (await api.get("/v1/me", headers=bearer(next_tokens["access_token"]))).status_code == 200
        unknown = await api.post("/v1/auth/refresh", json={"refresh_token": "none-of-ours"})
        assert refusal(unknown) == (401, "refresh_token_invalid")


async def test_after_signing_out_the_token_opens_no_sensitive_door_and_cannot_be_refreshed(
    api_server: ApiServer,
) -> None:
    async with api_as(api_server) as api:
        _, tokens = await sign_up(api)
        headers = bearer(tokens["access"])
        made = await api.post("/v1/workspaces", json={"name": "Mine"}, headers=headers)
        workspace, person = made.headers["location"], made.json()["data"]["created_by"]
        assert (await api.post("/v1/auth/sign-out", headers=headers)).status_code == 204
        sensitive = [
            await api.get("/v1/auth/session", headers=headers),
            await api.post("/v1/workspaces", json={"name": "Another"}, headers=headers),
            await api.delete(workspace, headers=headers),
            await api.patch(f"{workspace}/members/{person}", json={"role": "admin"}, headers=headers),
            await api.delete(f"{workspace}/members/{person}", headers=headers),
        ]
        assert [refusal(response) for response in sensitive] == [(401, "session_ended")] * 5
        refreshed = await api.post("/v1/auth/refresh", json={"refresh_token": tokens["refresh"]})
        assert refusal(refreshed) == (401, "refresh_token_invalid")
        assert (await api.post("/v1/auth/sign-out", headers=headers)).status_code == 204  # as asked, again


async def test_signing_out_globally_ends_every_session(api_server: ApiServer) -> None:
    async with api_as(api_server) as api:
        email, first = await sign_up(api)
        signed_in = await api.post("/v1/auth/sign-in", json={"email": email, "password": PASSWORD})
        second = signed_in.json()["data"]["access_token"]
        ended = await api.post("/v1/auth/sign-out?scope=global", headers=bearer(second))
        assert ended.status_code == 204
        for token in (first["access"], second):
            assert refusal(await api.get("/v1/auth/session", headers=bearer(token))) == (401, "session_ended")
        assert refusal(await api.post("/v1/auth/sign-out?scope=everything", headers=bearer(second)))[0] == 400


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Basic eDp5", "Bearer a.b.c", "Bearer x' or 1=1 --", "Bearer " + "a" * 6000, "bearer null"],
)
async def test_a_header_that_proves_nobody_is_refused(api_server: ApiServer, authorization: str) -> None:
    async with api_as(api_server) as api:
        response = await api.get("/v1/me", headers={"authorization": authorization})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert refusal(response)[1] in {"token_missing", "token_invalid"}


async def test_tokens_that_are_expired_forged_or_keys_are_refused(
    api_server: ApiServer, stack: RunningStack, database: asyncpg.Connection
) -> None:
    person = await new_caller(stack, database)
    expired = mint_token(stack, person.user_id, session_id=uuid4(), lifetime_s=-60)
    service = mint_token(stack, person.user_id, session_id=uuid4(), role="service_role")
    foreign = mint_token(stack, person.user_id, session_id=uuid4(), claims={"iss": "https://evil.example"})
    forged = f"{person.access_token[:-2]}{'AA' if person.access_token[-2:] != 'AA' else 'BB'}"
    async with api_as(api_server) as api:
        assert refusal(await api.get("/v1/me", headers=bearer(expired))) == (401, "token_expired")
        for token in (service, foreign, forged, stack.publishable_key, stack.secret_key):
            assert refusal(await api.get("/v1/me", headers=bearer(token))) == (401, "token_invalid")


async def test_a_refused_caller_is_refused_before_their_body_is_read(api_server: ApiServer) -> None:
    async with api_as(api_server) as api:
        response = await api.post("/v1/workspaces", content=b"{", headers={"content-type": "application/json"})
        assert refusal(response) == (401, "token_missing")


async def test_the_profile_of_a_deleted_person_is_gone_and_so_are_they(
    api_server: ApiServer, stack: RunningStack, database: asyncpg.Connection
) -> None:
    person = await new_caller(stack, database)
    await database.execute("delete from auth.users where id = $1", person.user_id)
    async with api_as(api_server, person) as api:
        assert refusal(await api.get("/v1/me")) == (401, "account_gone")


async def test_callers_at_the_same_time_each_see_only_themselves(
    api_server: ApiServer, stack: RunningStack, database: asyncpg.Connection
) -> None:
    people = [await new_caller(stack, database, display_name=f"Person {n}") for n in range(10)]

    at_once = asyncio.Semaphore(40)  # fewer than there are connections to Supabase, so that none is waited for

    async with api_as(api_server) as api:

        async def ask(person: Caller) -> tuple[Caller, httpx.Response]:
            async with at_once:
                return person, await api.get("/v1/me", headers=person.headers)

        for person, response in await asyncio.gather(*(ask(person) for person in people * 20)):
            assert response.json()["data"]["id"] == str(person.user_id)


async def test_too_many_wrong_passwords_are_refused_for_a_while_for_that_account_only(
    stack: RunningStack, fake_provider: FakeProvider
) -> None:
    """On a server of its own, whose flood guard nobody else fills."""
    with api_server_on(stack, fake_provider.url, name="api-flood") as server:
        async with api_as(server) as api:
            email, other = new_email(), new_email()
            await sign_up(api, email)
            wrong = {"email": email, "password": "Wrong-horse-9"}
            began_s = time.monotonic()
            answers = await asyncio.gather(*(api.post("/v1/auth/sign-in", json=wrong) for _ in range(30)))
            later = int((time.monotonic() - began_s) / 6)  # one more every six seconds
            codes = [refusal(answer)[1] for answer in answers]
            assert 10 <= codes.count("invalid_credentials") <= 10 + later
            assert codes.count("too_many_requests") == 30 - codes.count("invalid_credentials")
            while await pause_s(api, wrong) < 4:  # until the next one is far off
                pass
            stopped = await api.post("/v1/auth/sign-in", json={**wrong, "password": PASSWORD})
            assert refusal(stopped) == (429, "too_many_requests")
            assert 1 <= int(stopped.headers["retry-after"]) <= 6
            elsewhere = await api.post("/v1/auth/sign-in", json={"email": other, "password": "Wrong-horse-9"})
            assert refusal(elsewhere) == (401, "invalid_credentials")


async def pause_s(api: httpx.AsyncClient, wrong: dict[str, str]) -> int:
    """What a wrong password is told to wait: nothing where it was let in."""
    return int((await api.post("/v1/auth/sign-in", json=wrong)).headers.get("retry-after", "0"))


async def test_a_member_who_was_removed_is_a_stranger_at_once(
    api_server: ApiServer, stack: RunningStack, database: asyncpg.Connection
) -> None:
    team = await make_team(stack, database)
    path = f"/v1/workspaces/{team.workspace_id}"
    async with api_as(api_server, team.owner) as owner, api_as(api_server, team.member) as member:
        assert (await member.get(path)).status_code == 200
        assert (await owner.delete(f"{path}/members/{team.member.user_id}")).status_code == 204
        assert refusal(await member.get(path)) == (404, "workspace_not_found")
