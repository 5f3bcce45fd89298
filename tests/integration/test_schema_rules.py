"""The rules of supabase/tests/rules: each a query that returns a row for each fault, and so none for our schema."""

import asyncpg
import pytest

from stack.config import ROOT

RULES = {file.stem: file.read_text() for file in sorted((ROOT / "supabase" / "tests" / "rules").glob("*.sql"))}

# what a hurried colleague might write, and the rule that must notice
FAULTS = {
    "anonymous_callers_execute_nothing": ["grant execute on function api.create_workspace(text) to public"],
    "definer_functions_are_listed": [
        "grant execute on function private.live_caller() to authenticated",
        "revoke execute on function private.create_workspace(text) from authenticated",
    ],
    "dynamic_statements_are_listed": [
        "create function api.draft(x text) returns void language plpgsql as $$ begin execute 'select ' || x; end $$",
        "drop function api.usage_report, private.usage_report, private.usage_sums",
    ],
    "everything_is_commented": [
        "create table private.draft (id int primary key)",
        "alter table api.profiles add column birthday date",
        "comment on function private.live_caller() is null",
        'comment on policy "People change their own profile" on api.profiles is null',
    ],
    "foreign_keys_are_indexed": ["drop index api.workspaces_created_by_idx", "drop index api.members_user_id_idx"],
    "functions_are_sealed": [
        "create function private.draft() returns int language sql as 'select 1'",
        "create function api.draft() returns int language sql security definer set search_path = '' as 'select 1'",
        "alter function private.live_caller() set search_path = public",
    ],
    "grants_are_listed": [
        "grant truncate on api.members to anon",
        "grant update on api.workspaces to authenticated",
        "grant update (created_by) on api.workspaces to authenticated",
        "grant select on api.members to service_role",
        "revoke update (name) on api.workspaces from authenticated",
    ],
    "new_functions_are_not_public": ["alter default privileges grant execute on functions to public"],
    "policies_are_for_signed_in_people": [
        'create policy "All" on api.members for insert to authenticated with check (true)',
        "create policy \"Anybody\" on api.members for insert to anon with check (role = 'viewer')",
        'create policy "All files" on storage.objects for select to authenticated using (true)',
    ],
    "policies_ask_once_a_query": [
        'create policy "Mine" on api.members for insert to authenticated with check (user_id = auth.uid())',
        'create policy "Mine" on api.members for insert to authenticated with check (user_id = private.live_caller())',
    ],
    "policies_do_not_overlap": [
        'create policy "More" on api.members for select to authenticated using (user_id = (select auth.uid()))',
        'create policy "All" on api.profiles for all to authenticated using (id = (select auth.uid()))',
    ],
    "policy_columns_are_indexed": [
        'create policy "Old" on api.members for delete to authenticated using (created_at < now())',
    ],
    "schemas_are_closed": [
        "grant usage on schema gateway to authenticated",
        "grant create on schema api to authenticated",
        "revoke usage on schema private from authenticated",
    ],
    "tables_have_row_level_security": [
        "alter table api.members disable row level security",
        "create table private.draft (id int)",
    ],
    "views_obey_row_level_security": [
        "create view api.everybody as select id from api.profiles",
        "create materialized view api.everybody as select id from api.profiles",
    ],
}


async def faults(database: asyncpg.Connection, query: str) -> list[str]:
    return [row["fault"] for row in await database.fetch(query)]


@pytest.mark.parametrize("rule", RULES)
async def test_schema_obeys_rule(database: asyncpg.Connection, rule: str) -> None:
    assert await faults(database, RULES[rule]) == []


@pytest.mark.parametrize(("rule", "change"), [(rule, change) for rule, changes in FAULTS.items() for change in changes])
async def test_rule_notices_fault(database: asyncpg.Connection, rule: str, change: str) -> None:
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute(change)
        assert len(await faults(database, RULES[rule])) >= 1
    finally:
        await transaction.rollback()


def test_every_rule_is_shown_to_notice_a_fault() -> None:
    assert set(FAULTS) == set(RULES)
