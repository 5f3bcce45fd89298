"""The two HTTP clients of a process: one for Supabase, one for LLM providers."""

from __future__ import annotations

import aiohttp
import httpx
from httpx_aiohttp import HttpxAiohttpClient
from httpx_aiohttp import transport as _httpx_aiohttp_transport

# httpx-aiohttp 0.2.0 reports a refused connection, a failed name lookup and a broken one as `ConnectTimeout`.
_httpx_aiohttp_transport.AIOHTTP_EXC_MAP.update(
    {
        aiohttp.ClientConnectionError: httpx.ConnectError,
        aiohttp.ConnectionTimeoutError: httpx.ConnectTimeout,
    }
)


def make_http_client(
    *,
    max_connections: int = 64,
    connect_timeout_s: float = 2.0,
    read_timeout_s: float = 8.0,
    pool_timeout_s: float = 1.0,
) -> httpx.AsyncClient:
    """A client for Supabase: share one a process, close it at shutdown. Follows no redirects, retries nothing."""
    return HttpxAiohttpClient(
        timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=pool_timeout_s),
        limits=httpx.Limits(max_connections=max_connections, keepalive_expiry=30.0),
        follow_redirects=False,
        trust_env=False,
    )


def make_provider_session(
    *,
    max_connections: int = 512,
    connect_timeout_s: float = 5.0,
    idle_timeout_s: float = 60.0,
) -> aiohttp.ClientSession:
    """A session for LLM providers: share one a process, close it at shutdown. Must be called inside a running loop.

    No total timeout: streams are long, callers set their own deadlines; `idle_timeout_s` bounds the gap between bytes.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections, limit_per_host=0, keepalive_timeout=30.0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s),
        auto_decompress=True,
        trust_env=False,
    )
