"""The LLM gateway: OpenAI's wire format in front, any provider behind, limits that hold in between.

The API mounts it, and nothing else of this package is meant for it:

    gateway = create_gateway(settings)                  # no I/O; raises CatalogInvalid for a bad models.toml
    Litestar(
        route_handlers=[asgi("/llm", is_mount=True, copy_scope=True)(gateway.serve)],
        lifespan=[lambda _app: gateway.lifespan()],     # pool, provider session, reaper; drains settlements at the end
    )
    await gateway.unready_reason()                      # None, or a sentence for /health/ready
"""

from llm_gateway.app import Gateway, create_gateway
from llm_gateway.catalog import CatalogInvalid

__all__ = ["CatalogInvalid", "Gateway", "create_gateway"]
