"""/openapi.json and /docs."""

from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from api.documentation.page import CONTENT_SECURITY_POLICY, render_page
from api.http.caller import PUBLIC
from core.errors import NotFound

_VERSION = "0.1.0"
_json_plugin = JsonRenderPlugin()


class _Page(OpenAPIRenderPlugin):
    """Litestar's own pages load their scripts from a CDN; this one needs nobody."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)
        self._rendered: bytes | None = None

    # Any: Litestar's slots for user, auth and state, and JSON of any shape
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if self._rendered is None:
            self._rendered = render_page(openapi_schema)
        return self._rendered


def _finish(response: Response[Any]) -> Response[Any]:  # Any: the hook sees answers of every kind
    # Litestar adds a handler of its own that answers unknown pages in HTML; ours answer as everywhere else.
    if response.status_code == 404:
        raise NotFound
    response.headers["content-security-policy"] = CONTENT_SECURITY_POLICY
    return response


@get("/openapi.json", include_in_schema=False, opt=PUBLIC, media_type="application/json", sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any]) -> bytes:
    """The OpenAPI 3.1 document of this API."""
    return _json_plugin.render(request, request.app.openapi_schema.to_schema())


def openapi_config() -> OpenAPIConfig:
    """How the document is made and where its page is."""
    return OpenAPIConfig(
        title="Buttress API",
        version=_VERSION,
        description="Accounts, workspaces and usage. The LLM gateway lives under /llm and speaks its vendors' formats.",
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http", scheme="bearer", bearer_format="JWT", description="A Supabase access token."
                )
            }
        ),
        openapi_router=Router("/docs", route_handlers=[], opt=PUBLIC, include_in_schema=False, after_request=_finish),
        render_plugins=[_Page()],
    )
