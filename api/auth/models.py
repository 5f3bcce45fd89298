"""What accounts and sessions look like from outside."""

from datetime import UTC, datetime
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from api.http.body import RequestModel
from api.http.text import Email, Name, Password, Token
from api.supabase.auth import AuthSession


class Credentials(RequestModel):
    """An e-mail address and its password."""

    email: Email
    password: Password


class NewAccount(Credentials):
    """An account to make; without a display name it gets one from the e-mail address."""

    display_name: Name | None = None


class RefreshRequest(RequestModel):
    """The refresh token of the session to go on with; it can be used once."""

    refresh_token: Token


class User(BaseModel):
    """A person as Auth knows them."""

    id: UUID
    email: str | None


class Session(BaseModel):
    """Signed in: the access token opens every door until it expires, the refresh token gets the next one, once."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 the name of a scheme, not a secret
    expires_in_s: int = Field(description="Seconds from now.")
    expires_at: datetime
    user: User

    @classmethod
    def from_auth(cls, session: AuthSession) -> Self:
        return cls(
            access_token=session.access_token,
            refresh_token=session.refresh_token,
            expires_in_s=session.expires_in,
            expires_at=datetime.fromtimestamp(session.expires_at, tz=UTC),
            user=User(id=session.user.id, email=session.user.email),
        )


class SignedUp(BaseModel):
    """The account is there. With `confirmation_required` there is no session until the link in the mail is opened."""

    session: Session | None
    confirmation_required: bool


class CurrentSession(BaseModel):
    """The session behind the token that was sent, which Auth has confirmed just now."""

    user: User
    session_id: str | None
    aal: str = Field(description="`aal2` after a second factor.")
    expires_at: datetime
