"""PostgREST as the caller: row level security decides, and this process holds no database password for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import httpx
import orjson
from postgrest import AsyncPostgrestClient, AsyncRPCFilterRequestBuilder, AsyncSelectRequestBuilder
from postgrest.base_request_builder import RequestConfig
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.supabase.transport import transport_errors
from core.errors import InternalFault
from core.postgrest_errors import error_from_postgrest
from core.settings import Settings

Row = TypeVar("Row", bound=BaseModel)


def bind_caller(settings: Settings, http: httpx.AsyncClient, access_token: str) -> AsyncPostgrestClient:
    """A client that is this caller and nobody else; it costs microseconds, the connections are `http`'s.

    Never close it (`aclose` would close the shared `http`), and never call its `auth` (it mutates in place).
    """
    return AsyncPostgrestClient(
        f"{settings.supabase_url}/rest/v1",
        schema="api",
        headers={
            "apikey": settings.supabase_publishable_key.get_secret_value(),
            "Authorization": f"Bearer {access_token}",
            "Accept": "application/json",
        },
        http_client=http,
        retry_enabled=False,  # its retries sleep 1 + 2 + 4 s; a client of ours retries better, knowing Retry-After
    )


Query = AsyncSelectRequestBuilder | AsyncRPCFilterRequestBuilder
"""A finished postgrest builder: rows, or a function's answer."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A successful answer. total: rows that match, where `count` was asked for."""

    body: bytes
    total: int | None


async def run(query: Query) -> Rows:
    """PostgREST has done what the query says.

    The builder's own `execute` loses the HTTP status and validates nothing, so its request is sent here.
    Raises: the error that core/postgrest_errors.py names; Unavailable, GatewayTimeout.
    """
    with transport_errors():
        request = cast(
            "RequestConfig[httpx.AsyncClient]", query.request
        )  # RPC builders do not say which client they hold
        response = await request.send(httpx.Headers())
    if response.is_success:
        return Rows(response.content, _total(response.headers.get("content-range")))
    raise error_from_postgrest(_error_body(response), status=response.status_code)


async def fetch_rows(query: Query, model: type[Row]) -> list[Row]:
    """The rows a query answers, in its order. Raises: as `run`; InternalFault where their shape is not the model's."""
    return parse_rows((await run(query)).body, model)


async def fetch_row(query: Query, model: type[Row]) -> Row | None:
    """The row a query answers, or None. Raises: as `fetch_rows`; InternalFault when there are several."""
    rows: Sequence[Row] = await fetch_rows(query, model)
    if len(rows) > 1:
        raise InternalFault
    return rows[0] if rows else None


def parse_rows(body: bytes, model: type[Row]) -> list[Row]:
    """The rows in a JSON array; a single object (a function that returns one row) counts as one.

    Raises: InternalFault: the schema and the models have drifted apart.
    """
    try:
        if body[:1] == b"{":
            return [model.model_validate_json(body)]
        return TypeAdapter(list[model]).validate_json(body)  # type: ignore[valid-type]
    except ValidationError as cause:
        raise InternalFault from cause


def _error_body(response: httpx.Response) -> dict[str, object]:
    """PostgREST's error object; empty where a proxy answered instead."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _total(content_range: str | None) -> int | None:
    """The figure after the slash of `0-19/57`; None for `*`."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdigit() else None
