"""What keeps Supabase from answering at all, in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from core.errors import GatewayTimeout, Unavailable


@contextmanager
def transport_errors() -> Iterator[None]:
    """Whatever httpx raises inside leaves as one of our errors, with the original as its cause.

    Raises: Unavailable where no connection was to be had or it broke; GatewayTimeout where the answer did not come.
    """
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as cause:
        raise Unavailable from cause
    except httpx.TimeoutException as cause:
        raise GatewayTimeout from cause
    except httpx.TransportError as cause:
        raise Unavailable from cause
