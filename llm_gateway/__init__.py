"""The LLM gateway: OpenAI's and Anthropic's wire formats in front, any provider behind, limits that hold in between.

Another service mounts it, and nothing else of this package is meant for it:

    gateway = create_gateway(settings)          # reads models.toml; raises CatalogInvalid, naming all that is wrong
    async with gateway.lifespan(): ...          # pool, provider session, upkeep; at the end every call is settled
    await gateway.serve(scope, receive, send)   # ASGI; the path with or without the mount point, MOUNTED_AT
    await gateway.unready_reason()              # None, or a sentence for /health/ready
    gateway.is_leaving()                        # true once it was told to stop; for `core.asgi.Edge`
    gateway.catalog                             # the public models: iterable, each with a name
    KeyRing.from_settings(settings).make()      # an API key: its secret, and the digest that the database keeps
    gateway.metrics_app()                       # ASGI for METRICS_AT; None without BUTTRESS_METRICS_TOKEN
    render_error(error, request_id, scope)      # for `core.asgi.Edge`, where it refuses something below /llm itself

Whoever mounts it must not authenticate or limit what goes to `/llm`: the gateway does, in its own format.
"""

from llm_gateway.catalog import CatalogInvalid
from llm_gateway.endpoints import MOUNTED_AT, render_error
from llm_gateway.gateway import Gateway, create_gateway
from llm_gateway.keys import KeyRing, NewKey, is_key
from llm_gateway.metrics_endpoint import METRICS_AT

__all__ = [
    "METRICS_AT",
    "MOUNTED_AT",
    "CatalogInvalid",
    "Gateway",
    "KeyRing",
    "NewKey",
    "create_gateway",
    "is_key",
    "render_error",
]
