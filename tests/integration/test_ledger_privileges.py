"""Who may reach the ledger, and through what: read from the catalogue and then tried."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from tests.support.ledger import TestLimits, new_user
from tests.support.stack import RunningStack

LEDGER = {"hold_one", "finish_one", "post", "reprice", "renew", "reap", "rehearse", "upkeep", "forget_meters"}
BESIDE_IT = {"find_cached", "store_cached", "sweep_cache", "store_content", "sweep_contents", "standing"}
CALLERS = {"find_callers", "note_use_of_keys"}
GATEWAY_MAY_EXECUTE = LEDGER | BESIDE_IT | CALLERS
NOTHING = ", ".join(["'{}'"] * 9)
ROLES = ["anon", "authenticated", "service_role", "gateway_service"]


async def relations(database: asyncpg.Connection) -> list[str]:
    rows = await database.fetch(
        "select format('gateway.%I', relname) from pg_class"
        " where relnamespace = 'gateway'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')"
    )
    return [row[0] for row in rows]


async def functions(database: asyncpg.Connection, role: str) -> set[str]:
    """The functions of schema gateway that the role may execute; '' for all there are."""
    rows = await database.fetch(
        "select proname from pg_proc where pronamespace = 'gateway'::regnamespace"
        " and ($1 = '' or has_function_privilege(nullif($1, ''), oid, 'execute'))",
        role,
    )
    return {row[0] for row in rows}


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_has_a_privilege_on_a_table_of_the_ledger(database: asyncpg.Connection, role: str) -> None:
    names = await relations(database)
    assert len(names) >= 6
    for name in names:
        allowed = await database.fetchval(
            "select has_table_privilege($1, $2, 'select, insert, update, delete, truncate, references, trigger')"
            " or has_any_column_privilege($1, $2, 'select, insert, update, references')",
            role,
            name,
        )
        assert not allowed, name


@pytest.mark.parametrize("role", ROLES)
async def test_the_gateway_may_execute_its_functions_and_others_none(database: asyncpg.Connection, role: str) -> None:
    expected = GATEWAY_MAY_EXECUTE if role == "gateway_service" else set()
    assert await functions(database, role) == expected
    assert await functions(database, "") > GATEWAY_MAY_EXECUTE


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_only_the_gateway_may_even_name_things_of_the_schema(database: asyncpg.Connection, role: str) -> None:
    assert not await database.fetchval("select has_schema_privilege($1, 'gateway', 'usage, create')", role)


async def test_what_acts_with_the_owners_rights_cannot_be_led_astray(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "select proname from pg_proc where pronamespace = 'gateway'::regnamespace"
        " and not coalesce(proconfig, '{}') @> array['search_path=\"\"']"
    )
    assert [row[0] for row in rows] == []
    definers = await database.fetch(
        "select proname from pg_proc where pronamespace = 'gateway'::regnamespace and prosecdef"
    )
    assert {row[0] for row in definers} == GATEWAY_MAY_EXECUTE


async def test_the_gateways_login_can_neither_read_nor_set_the_clock(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    user_id = await new_user(database, TestLimits())
    gateway = await asyncpg.connect(stack.gateway_database_url)
    try:
        for statement in (
            "select * from gateway.meters",
            "select * from gateway.usage",
            "update gateway.limits set calls_in_flight = 100000",
            f"select * from gateway.post_at(now(), {NOTHING}, {NOTHING})",
            "select gateway.admit_lone(now(), 'x', null, null, null, null, 'm', 1, 1, 1000)",
            "select gateway.finish_lone(now(), 'x', null, 'voided', null, false, null, null, '{}', 0)",
            "select gateway.reprice_at(now(), 'x', 1, 1)",
            "select gateway.reap_at('2100-01-01', 1000)",
            f"select gateway.finish(now(), {NOTHING})",
            "select gateway.upkeep_at(now())",
            "select id from auth.users",
            "create table gateway.mine (id integer)",
            "set role authenticated",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await gateway.execute(statement)
        verdict = await gateway.fetchval(
            f"select verdict from gateway.post({NOTHING}, array[$1], array[$2]::uuid[], array[$3]::uuid[],"
            " array[null]::uuid[], array[null]::uuid[], '{m}', '{1}', '{1}', '{1000}')",
            uuid4().hex,
            uuid4(),
            user_id,
        )
        assert verdict == "held"
        with pytest.raises(asyncpg.InvalidParameterValueError, match="only the reaper"):
            await gateway.execute(
                "select gateway.post('{x}', array[null]::uuid[], '{expired}', '{ok}', '{false}', '{chat}', '{d}',"
                f" '{{0,0,0,0,0,0,0,0,0}}', '{{0}}', {NOTHING})"
            )
        with pytest.raises(asyncpg.InvalidParameterValueError, match="settled or voided"):
            await gateway.execute(
                "select gateway.finish_one('x', null, 'expired', 'ok', false, 'chat', 'd', '{0,0,0,0,0,0,0,0,0}', 0)"
            )
    finally:
        await gateway.close()


async def test_every_table_of_the_ledger_has_row_level_security_on_as_a_second_wall(
    database: asyncpg.Connection,
) -> None:
    rows = await database.fetch(
        "select relname from pg_class where relnamespace = 'gateway'::regnamespace and relkind in ('r', 'p')"
        " and not relrowsecurity"
    )
    assert [row[0] for row in rows] == []


async def test_everything_in_the_ledger_says_what_it_is(database: asyncpg.Connection) -> None:
    silent = await database.fetch(
        """
        select 'function ' || proname as what from pg_proc
        where pronamespace = 'gateway'::regnamespace and obj_description(oid, 'pg_proc') is null
        union all
        select 'relation ' || relname from pg_class
        where relnamespace = 'gateway'::regnamespace and relkind in ('r', 'p', 'v')
            and obj_description(oid, 'pg_class') is null
        union all
        select 'column ' || relname || '.' || attname from pg_attribute
        join pg_class on pg_class.oid = attrelid
        where relnamespace = 'gateway'::regnamespace and relkind in ('r', 'p') and not relispartition
            and attnum > 0 and not attisdropped
            and col_description(attrelid, attnum) is null
        """
    )
    assert [row["what"] for row in silent] == []
