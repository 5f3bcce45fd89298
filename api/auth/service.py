"""The rules of signing in: guard against floods, and tell strangers nothing."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from api.auth.models import Credentials, CurrentSession, NewAccount, Session, SignedUp, User
from api.http.caller import Caller
from api.http.flood import FloodGuard
from api.supabase.auth import InvalidCredentials, SupabaseAuth

_REFUSAL_AFTER_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class SignInGuards:
    """Two floods: many passwords for one account, and one password for many accounts.

    The first is counted by account and address together, so that a stranger cannot lock a person out.
    """

    by_account_and_ip: FloodGuard
    by_ip: FloodGuard

    def admit(self, email: str, client_ip: str) -> None:
        """One attempt is charged. Raises: TooManyRequests."""
        self.by_account_and_ip.admit(f"{email} {client_ip}")
        self.by_ip.admit(client_ip)

    def forgive(self, email: str, client_ip: str) -> None:
        """The attempt was right and does not count."""
        self.by_account_and_ip.forgive(f"{email} {client_ip}")
        self.by_ip.forgive(client_ip)


async def sign_up(auth: SupabaseAuth, account: NewAccount, *, client_ip: str) -> SignedUp:
    """The account exists; where e-mail confirmation is on, one that existed gets the same answer."""
    session = await auth.sign_up(
        account.email, account.password, display_name=account.display_name, client_ip=client_ip
    )
    if session is None:
        return SignedUp(session=None, confirmation_required=True)
    return SignedUp(session=Session.from_auth(session), confirmation_required=False)


async def sign_in(auth: SupabaseAuth, guards: SignInGuards, credentials: Credentials, *, client_ip: str) -> Session:
    """A new session. Raises: InvalidCredentials, TooManyRequests; NotAllowed for an unconfirmed address."""
    guards.admit(credentials.email, client_ip)
    started_s = time.monotonic()
    try:
        session = await auth.sign_in(credentials.email, credentials.password, client_ip=client_ip)
    except InvalidCredentials:
        # Auth answers at once where there is no account, and hashes the password where there is one (measured: 6 and
        # 62 ms); waiting until both have had time tells a stranger nothing.
        await asyncio.sleep(max(0.0, started_s + _REFUSAL_AFTER_S - time.monotonic()))
        raise
    guards.forgive(credentials.email, client_ip)
    return Session.from_auth(session)


async def current_session(auth: SupabaseAuth, caller: Caller) -> CurrentSession:
    """The caller's session, asked of Auth, because a signed-out token goes on verifying. Raises: SessionEnded."""
    user = await auth.fetch_user(caller.access_token)
    return CurrentSession(
        user=User(id=user.id, email=user.email),
        session_id=caller.claims.session_id,
        aal=caller.claims.aal,
        expires_at=datetime.fromtimestamp(caller.claims.expires_at, tz=UTC),
    )
