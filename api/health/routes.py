"""/health: for load balancers and people on call."""

from litestar import Response, Router, get

from api.health.models import Alive, Ready
from api.health.service import NotReady
from api.http.caller import PUBLIC
from api.http.envelope import Answer
from api.http.openapi import refusals
from api.services import SharedServices

_NOT_CACHED = {"cache-control": "no-store"}


@get("/live", sync_to_thread=False)
def live() -> Response[Answer[Alive]]:
    """The process lives. Asks nobody, so a dead database does not get it restarted."""
    return Response(Answer(data=Alive()), headers=_NOT_CACHED)


@get("/ready", responses=refusals(public=True))
async def ready(services: SharedServices) -> Response[Answer[Ready]]:
    """Requests can be served; 503 names the part that is down."""
    results = await services.readiness.results()
    if not all(results.values()):
        raise NotReady(details={"parts": {name: "ok" if up else "down" for name, up in results.items()}})
    return Response(Answer(data=Ready(parts=dict.fromkeys(results, "ok"))), headers=_NOT_CACHED)


ROUTER = Router("/health", route_handlers=[live, ready], opt=PUBLIC, tags=["health"])
