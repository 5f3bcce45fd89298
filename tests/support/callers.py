"""People for tests: with real rows and real tokens, as many as a test needs, in a few milliseconds each."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol
from uuid import UUID, uuid4

import asyncpg
import httpx
from jose import jwt

from tests.support.pools import PATIENCE_S

PASSWORD = "Correct-horse-battery-9"


class SupabaseEndpoint(Protocol):
    """What a caller must know of a Supabase; RunningStack is one."""

    @property
    def supabase_url(self) -> str: ...
    @property
    def publishable_key(self) -> str: ...
    @property
    def jwt_secret(self) -> str: ...


@dataclass(frozen=True)
class Caller:
    """Somebody who calls; `role` is the database role of their token. The anonymous caller has no token."""

    user_id: UUID
    email: str
    access_token: str
    role: str = "authenticated"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"} if self.access_token else {}


ANONYMOUS = Caller(user_id=UUID(int=0), email="", access_token="", role="anon")


@dataclass(frozen=True)
class Team:
    """One workspace with a member of each role, somebody who has nothing to do with it, and nobody."""

    owner: Caller
    admin: Caller
    member: Caller
    viewer: Caller
    stranger: Caller
    anonymous: Caller
    workspace_id: UUID

    @property
    def callers(self) -> dict[str, Caller]:
        """By the names of the fields: owner, admin, member, viewer, stranger, anonymous."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "workspace_id"}


def mint_token(
    stack: SupabaseEndpoint,
    user_id: UUID,
    *,
    session_id: UUID,
    email: str = "",
    role: str = "authenticated",
    lifetime_s: float = 3600,
    claims: Mapping[str, object] | None = None,
) -> str:
    """A token with every claim that hosted Supabase always puts in; `claims` overrides, a None takes one out."""
    now_s = int(time.time())
    always: dict[str, object] = {
        "iss": f"{stack.supabase_url}/auth/v1",
        "aud": "authenticated",
        "exp": now_s + int(lifetime_s),
        "iat": now_s,
        "sub": str(user_id),
        "role": role,
        "aal": "aal1",
        "session_id": str(session_id),
        "email": email,
        "phone": "",
        "is_anonymous": False,
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {},
    }
    wanted = {name: claim for name, claim in {**always, **(claims or {})}.items() if claim is not None}
    return str(jwt.encode(wanted, stack.jwt_secret, algorithm="HS256"))


async def open_session(database: asyncpg.Connection, user_id: UUID) -> UUID:
    """The id of a new row of auth.sessions: the person is signed in as long as it is there."""
    session_id = uuid4()
    await database.execute(
        "insert into auth.sessions (id, user_id, created_at, updated_at, aal) values ($1, $2, now(), now(), 'aal1')",
        session_id,
        user_id,
    )
    return session_id


async def new_caller(stack: SupabaseEndpoint, database: asyncpg.Connection, *, display_name: str = "Test") -> Caller:
    """Somebody who has signed up and in, past Auth: their row, what the trigger makes of it, a session and a token."""
    user_id = uuid4()
    email = f"{user_id.hex}@example.com"
    await database.execute(
        """
        insert into auth.users (
            id, aud, role, email, email_confirmed_at, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
        )
        values (
            $1, 'authenticated', 'authenticated', $2, now(), '{"provider": "email", "providers": ["email"]}',
            jsonb_build_object('display_name', $3::text), now(), now()
        )
        """,
        user_id,
        email,
        display_name,
    )
    session_id = await open_session(database, user_id)
    return Caller(user_id, email, mint_token(stack, user_id, session_id=session_id, email=email))


async def sign_up(stack: SupabaseEndpoint, *, display_name: str = "Test") -> Caller:
    """Somebody who signed up through Auth itself, with PASSWORD. For tests of Auth; `new_caller` is faster."""
    email = f"{uuid4().hex}@example.com"
    async with httpx.AsyncClient(
        base_url=stack.supabase_url, headers={"apikey": stack.publishable_key}, timeout=PATIENCE_S
    ) as client:
        response = await client.post(
            "/auth/v1/signup",
            json={"email": email, "password": PASSWORD, "data": {"display_name": display_name}},
        )
    response.raise_for_status()
    session = response.json()
    return Caller(UUID(session["user"]["id"]), email, session["access_token"])


async def join(database: asyncpg.Connection, workspace_id: UUID, caller: Caller, role: str) -> None:
    """The caller is a member of the workspace."""
    await database.execute(
        "insert into api.members (workspace_id, user_id, role) values ($1, $2, $3)", workspace_id, caller.user_id, role
    )


async def make_team(stack: SupabaseEndpoint, database: asyncpg.Connection) -> Team:
    """A new workspace with its owner, admin, member and viewer; a stranger to it; and the anonymous caller."""
    people = {
        role: await new_caller(stack, database, display_name=role.title())
        for role in ("owner", "admin", "member", "viewer", "stranger")
    }
    workspace_id = await database.fetchval(
        "insert into api.workspaces (name, created_by) values ('Team', $1) returning id", people["owner"].user_id
    )
    for role in ("owner", "admin", "member", "viewer"):
        await join(database, workspace_id, people[role], role)
    return Team(**people, anonymous=ANONYMOUS, workspace_id=workspace_id)


def rest(stack: SupabaseEndpoint, caller: Caller) -> httpx.AsyncClient:
    """A client of PostgREST itself, as the caller, in schema api. Close it: `async with rest(…) as client`."""
    return httpx.AsyncClient(
        base_url=f"{stack.supabase_url}/rest/v1",
        headers={"apikey": stack.publishable_key, "Accept-Profile": "api", "Content-Profile": "api", **caller.headers},
        timeout=PATIENCE_S,
        verify=stack.supabase_url.startswith(
            "https:"
        ),  # reading the certificates takes 0.1 s that plain HTTP has no use for
    )


async def call_function(stack: SupabaseEndpoint, caller: Caller, function: str, **arguments: object) -> httpx.Response:
    """PostgREST's answer to the function of schema api, called by name."""
    body = {name: str(value) if isinstance(value, UUID) else value for name, value in arguments.items()}
    async with rest(stack, caller) as client:
        return await client.post(f"/rpc/{function}", json=body)


def outcome(response: httpx.Response) -> tuple[int, str | None]:
    """The status, and of a refusal the code."""
    return response.status_code, response.json()["code"] if response.is_error else None


async def read_roles(database: asyncpg.Connection, workspace_id: UUID) -> dict[UUID, str]:
    """The workspace's members and what each is there."""
    rows = await database.fetch("select user_id, role from api.members where workspace_id = $1", workspace_id)
    return {row["user_id"]: row["role"] for row in rows}
