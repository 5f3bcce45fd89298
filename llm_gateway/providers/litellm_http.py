"""litellm's HTTP client, kept from asking twice and from leaving connections behind."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, Final

# Every response that the current call has opened; None outside of one.
opened_responses: Final[ContextVar[list[Any] | None]] = ContextVar("opened_responses", default=None)  # Any: httpx's own


def tame(handler: Any) -> None:  # Any: litellm's AsyncHTTPHandler
    """From here on a broken connection is not asked again, and every response is noted for whoever must close it.

    A second attempt would have the provider work, and be paid, twice. And a stream that is left early would keep its
    connection, the provider would go on writing to nobody: litellm's own `aclose` does not reach the response.
    """
    if handler.single_connection_post_request is _give_up:
        return
    post = handler.post

    async def noted_post(*args: Any, **kwargs: Any) -> Any:
        response = await post(*args, **kwargs)
        opened = opened_responses.get()
        if opened is not None:
            opened.append(response)
        return response

    handler.post = noted_post
    handler.single_connection_post_request = _give_up


async def _give_up(*_: object, **__: object) -> None:
    raise sys.exc_info()[1] or RuntimeError("asked for a second attempt without a failed first one")


async def close_all(responses: list[Any]) -> None:
    """The connections of these responses are closed."""
    for response in responses:
        await response.aclose()
