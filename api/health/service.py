"""Readiness: every part is asked at once, and none may take long."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import httpx

from core.errors import Unavailable
from core.logging import get_logger
from core.settings import Settings

Check = Callable[[], Awaitable[bool]]

_log = get_logger(__name__)


class NotReady(Unavailable):
    """At least one part does not answer; `details.parts` says which."""

    default_code = "not_ready"
    default_message = "This service cannot serve requests right now."


def supabase_checks(settings: Settings, http: httpx.AsyncClient) -> dict[str, Check]:
    """Auth is asked for its health; PostgREST for an empty read, which it cannot answer without the database.

    The read is refused (nobody is signed in), and a refusal is an answer.
    """
    headers = {"apikey": settings.supabase_publishable_key.get_secret_value(), "accept-profile": "api"}

    async def answers(path: str) -> bool:
        response = await http.get(f"{settings.supabase_url}{path}", headers=headers)
        return response.status_code < 500

    return {
        "auth": lambda: answers("/auth/v1/health"),
        "database": lambda: answers("/rest/v1/workspaces?select=id&limit=1"),
    }


class Readiness:
    """All checks, asked once at a time: however many ask for readiness, they share one answer.

    Anybody may ask, so a flood of questions must not keep the parts busy until they seem down to a load balancer.
    """

    def __init__(self, checks: Mapping[str, Check], *, budget_s: float) -> None:
        self._checks = checks
        self._budget_s = budget_s
        self._asking: asyncio.Task[dict[str, bool]] | None = None

    async def results(self) -> dict[str, bool]:
        """By name, whether each part answers. Raises nothing."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(check_all(self._checks, self._budget_s))
        return await asyncio.shield(self._asking)  # whoever leaves does not take the answer from the others


async def check_all(checks: Mapping[str, Check], budget_s: float) -> dict[str, bool]:
    """By name, whether each part answered well within that time. Raises nothing."""
    results = await asyncio.gather(*(_check(name, check, budget_s) for name, check in checks.items()))
    return dict(zip(checks, results, strict=True))


async def _check(name: str, check: Check, budget_s: float) -> bool:
    try:
        async with asyncio.timeout(budget_s):
            return await check()
    except Exception as cause:  # noqa: BLE001 whatever keeps a part from answering, the part is down
        _log.warning("part_down", part=name, exc_info=cause)
        return False
