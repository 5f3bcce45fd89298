"""The gateway's wiring: `create_gateway` for whoever mounts it, `create_app` to run alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from litestar.types import Receive, Scope, Send

if TYPE_CHECKING:
    from core.settings import Settings


class Gateway:
    """The gateway as a part of another application: an ASGI handler, its lifespan, and its readiness."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request below the mount point (`/v1/models`, `/v1/chat/completions` …) has been answered."""
        raise NotImplementedError

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        """Within: requests may be served. Afterwards: every call is settled and every connection is closed."""
        raise NotImplementedError
        yield

    async def unready_reason(self) -> str | None:
        """None while calls can be served, else a sentence saying what is missing (safe to show)."""
        raise NotImplementedError


def create_gateway(settings: Settings) -> Gateway:
    """A gateway that has done no I/O yet.

    Raises: CatalogInvalid naming everything that is wrong with models.toml.
    """
    raise NotImplementedError
