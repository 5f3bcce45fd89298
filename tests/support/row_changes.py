"""What a request did to the rows of schema api, whoever they belong to."""

from typing import NamedTuple

import asyncpg

_ROWS = {
    "profiles": "select id::text as key, to_jsonb(t)::text as content from api.profiles as t",
    "workspaces": "select id::text as key, to_jsonb(t)::text as content from api.workspaces as t",
    "members": "select workspace_id || ' ' || user_id as key, to_jsonb(t)::text as content from api.members as t",
}


class Row(NamedTuple):
    table: str
    key: str  # the primary key's columns, a space between them


async def read_rows(database: asyncpg.Connection) -> dict[Row, str]:
    """Every row of schema api with its content, past row level security. Covers the tables in `TABLES`."""
    return {
        Row(table, row["key"]): row["content"] for table, query in _ROWS.items() for row in await database.fetch(query)
    }


def changed_rows(before: dict[Row, str], after: dict[Row, str]) -> set[Row]:
    """The rows that were added, removed, or have another content."""
    return {row for row in before.keys() | after.keys() if before.get(row) != after.get(row)}


TABLES = frozenset(_ROWS)
