"""The HTTP client for Supabase; that for LLM providers is in provider_http.py.

Shared by all requests of a process, so it remembers nothing between two of them: no cookies, no credentials, no
redirects, no proxies from the environment, no retries.
"""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp import transport as _transport_module

from core.settings import Settings

# httpx-aiohttp 0.2.0 reports a refused connection, a failed name lookup and a dropped connection as `ConnectTimeout`.
_transport_module.AIOHTTP_EXC_MAP.update(
    {
        aiohttp.ClientConnectionError: httpx.ConnectError,
        aiohttp.ConnectionTimeoutError: httpx.ConnectTimeout,
    }
)

KEEP_ALIVE_S: Final = 30.0  # below the 60 s and more after which servers and load balancers hang up on us


def supabase_client(settings: Settings) -> httpx.AsyncClient:
    """As patient as the settings say: so long for a connection, and eight times as long for an answer."""
    deadline_s = settings.supabase_deadline_s
    return make_http_client(connect_timeout_s=deadline_s, read_timeout_s=8 * deadline_s)


def make_http_client(
    *,
    max_connections: int = 64,
    connect_timeout_s: float = 1.0,
    read_timeout_s: float = 8.0,
) -> httpx.AsyncClient:
    """A client for Supabase: share one a process, close it at shutdown.

    Raises, when used: httpx.ConnectTimeout when no connection could be had within `connect_timeout_s`, whether the pool
    was exhausted or the server silent; ReadTimeout; ConnectError for a refused, failed or dropped connection. After a
    dropped one the server may have done the work: never repeat a POST because of it.
    """

    def make_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # httpx does that
        )

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=make_session),
        # aiohttp's one limit for waiting and connecting together is what httpx calls the pool's.
        timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )
