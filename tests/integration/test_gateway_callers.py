"""Who calls, as the directory finds them: exactly, together, never older than a second, and bounded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.errors import ButtressError, InvalidInput, NotAllowed, NotAuthenticated
from core.postgres import ServicePool
from core.tokens import TokenVerifier
from llm_gateway import directory as directory_module
from llm_gateway.caller import Caller, Policy
from llm_gateway.callers import Callers
from llm_gateway.directory import CALLERS_A_QUESTION, FRESH_S, QUESTIONS_AT_ONCE, Entry, PostgresDirectory, Question
from llm_gateway.keys import KeyRing, NewKey
from tests.support.api_keys import add_secret, new_key, ring_of
from tests.support.callers import Caller as Person
from tests.support.callers import Team, new_caller
from tests.support.eventually import eventually
from tests.support.pools import pool_on
from tests.support.stack import RunningStack


class CountingDirectory(PostgresDirectory):
    """The real one, which says how many callers each of its questions was about."""

    def __init__(self, pool: ServicePool) -> None:
        self.now_s = 1000.0
        super().__init__(pool, clock=lambda: self.now_s)
        self.questions: list[int] = []

    async def _fetch(self, questions: Sequence[Question]) -> Sequence[Entry | None]:
        self.questions.append(len(questions))
        return await super()._fetch(questions)


@pytest.fixture
async def directory(stack: RunningStack) -> AsyncIterator[CountingDirectory]:
    """More patient than in service, so that a busy machine is not taken for an outage (tests/faults has those)."""
    async with pool_on(stack.gateway_database_url, name="callers-test", max_size=QUESTIONS_AT_ONCE) as pool:
        directory = CountingDirectory(pool)
        yield directory
        await directory.aclose()


@pytest.fixture
def tokens(stack: RunningStack) -> TokenVerifier:
    return TokenVerifier(issuer=f"{stack.supabase_url}/auth/v1", audience="authenticated", jwt_secret=stack.jwt_secret)


@pytest.fixture
def callers(stack: RunningStack, tokens: TokenVerifier, directory: CountingDirectory) -> Callers:
    return Callers(tokens, ring_of(stack), directory)


@pytest.fixture
async def person(stack: RunningStack, database: asyncpg.Connection) -> Person:
    return await new_caller(stack, database)


def bearer(credential: str, workspace_id: UUID | str | None = None) -> dict[bytes, bytes]:
    workspace = {} if workspace_id is None else {b"x-buttress-workspace": str(workspace_id).encode()}
    return {b"authorization": f"Bearer {credential}".encode(), **workspace}


async def code_of(callers: Callers, headers: dict[bytes, bytes]) -> str:
    with pytest.raises(ButtressError) as refused:
        await callers.identify(headers)
    return refused.value.code


async def test_a_key_is_its_person_with_its_workspace_and_its_scopes(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, team: Team
) -> None:
    key = await new_key(
        stack, database, team.member, workspace_id=team.workspace_id, models=["a", "b"], endpoints=["chat"]
    )
    for headers in (bearer(key.secret), {b"x-api-key": key.secret.encode()}, bearer(key.secret, team.workspace_id)):
        caller = await callers.identify(headers)
        assert (caller.user_id, caller.key_id, caller.workspace_id) == (
            team.member.user_id,
            key.id,
            team.workspace_id,
        )
        assert (caller.policy.models, caller.policy.endpoints) == (frozenset("ab"), frozenset({"chat"}))


async def test_a_token_names_its_workspace_and_may_only_name_one_of_its_own(callers: Callers, team: Team) -> None:
    assert (await callers.identify(bearer(team.member.access_token))) == Caller(user_id=team.member.user_id)
    caller = await callers.identify(bearer(team.member.access_token, team.workspace_id))
    assert (caller.user_id, caller.workspace_id, caller.key_id) == (team.member.user_id, team.workspace_id, None)
    assert await code_of(callers, bearer(team.viewer.access_token, team.workspace_id)) == "not_allowed"
    for workspace_id in (team.workspace_id, uuid4()):
        assert await code_of(callers, bearer(team.stranger.access_token, workspace_id)) == "not_a_member"
    for wrong in ("x", f"{{{team.workspace_id}}}", "' or true --", "0" * 5000):
        with pytest.raises(InvalidInput):
            await callers.identify(bearer(team.member.access_token, wrong))


async def test_a_keys_workspace_is_fixed(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, team: Team
) -> None:
    key = await new_key(stack, database, team.member)
    with pytest.raises(NotAllowed):
        await callers.identify(bearer(key.secret, team.workspace_id))


async def test_two_different_credentials_at_once_are_nobody(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, person: Person
) -> None:
    key = await new_key(stack, database, person)
    assert (await callers.identify({**bearer(key.secret), b"x-api-key": key.secret.encode()})).key_id == key.id
    both = {**bearer(person.access_token), b"x-api-key": key.secret.encode()}
    assert await code_of(callers, both) == "token_invalid"
    assert (await callers.identify({b"x-api-key": person.access_token.encode()})).user_id == person.user_id


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("update gateway.api_keys set revoked_at = now() where id = $1", "api_key_revoked"),
        ("update gateway.api_keys set expires_at = now() where id = $1", "api_key_expired"),
        ("update gateway.api_key_secrets set expires_at = now() where key_id = $1", "api_key_rotated"),
        ("delete from gateway.api_keys where id = $1", "api_key_invalid"),
        (
            "update auth.users set banned_until = now() + interval '1 hour'"
            " where id = (select user_id from gateway.api_keys where id = $1)",
            "account_suspended",
        ),
        (
            "update auth.users set deleted_at = now() where id = (select user_id from gateway.api_keys where id = $1)",
            "user_not_found",
        ),
        (
            "update api.members set role = 'viewer'"
            " where user_id = (select user_id from gateway.api_keys where id = $1)",
            "not_allowed",
        ),
    ],
)
async def test_a_key_that_has_ended_says_why(
    *, change: str, code: str, stack: RunningStack, database: asyncpg.Connection, callers: Callers, team: Team
) -> None:
    key = await new_key(stack, database, team.member, workspace_id=team.workspace_id)
    await database.execute(change, key.id)
    assert await code_of(callers, bearer(key.secret)) == code


async def test_a_rotated_key_is_one_key_by_both_secrets(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, person: Person
) -> None:
    key = await new_key(stack, database, person)
    second = ring_of(stack).make()
    await add_secret(database, key.id, second)
    assert (await callers.identify(bearer(key.secret))).key_id == key.id
    assert (await callers.identify(bearer(second.secret))).key_id == key.id


async def test_keys_outlive_the_pepper_that_they_were_made_with(
    stack: RunningStack,
    database: asyncpg.Connection,
    directory: CountingDirectory,
    tokens: TokenVerifier,
    person: Person,
) -> None:
    old, new = stack.secrets.key_pepper, "the pepper after that of thirty-two characters"
    before, after = Callers(tokens, KeyRing(old, [new]), directory), Callers(tokens, KeyRing(new, [old]), directory)
    for ring in (KeyRing(old), KeyRing(new)):
        key = await new_key(stack, database, person, made=ring.make())
        for callers in (before, after):  # two processes, between which the change is made
            assert (await callers.identify(bearer(key.secret))).key_id == key.id
    assert await code_of(Callers(tokens, KeyRing(old), directory), bearer(key.secret)) == "api_key_invalid"


async def test_plan_key_and_workspace_allow_what_all_of_them_allow(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, team: Team
) -> None:
    key = await new_key(stack, database, team.member, workspace_id=team.workspace_id, models=["a", "b", "x"])
    for scope, subject_id, models, most in (
        ("user", team.member.user_id, ["a", "b", "c"], 100),
        ("workspace", team.workspace_id, ["b", "c"], 50),
        ("key", key.id, None, 70),
    ):
        plan = f"plan-{uuid4().hex[:8]}"
        await database.execute(
            "insert into gateway.plans (name, models, max_output_tokens, max_choices) values ($1, $2, $3, $3)",
            plan,
            models,
            most,
        )
        await database.execute(
            "insert into gateway.limits (scope, subject_id, plan) values ($1, $2, $3)", scope, subject_id, plan
        )
    policy = (await callers.identify(bearer(key.secret))).policy
    assert (policy.models, policy.max_output_tokens, policy.max_choices) == (frozenset("b"), 50, 50)
    policy = (await callers.identify(bearer(team.member.access_token))).policy
    assert (policy.models, policy.max_output_tokens) == (frozenset("abc"), 100)


async def test_a_workspaces_settings_hold_for_its_calls_and_no_others(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, team: Team
) -> None:
    await database.execute(
        "insert into gateway.workspace_settings (workspace_id, models, redact, redact_answers, store_content)"
        " values ($1, array['a'], true, false, true)",
        team.workspace_id,
    )
    key = await new_key(stack, database, team.member, workspace_id=team.workspace_id)
    for headers in (bearer(key.secret), bearer(team.member.access_token, team.workspace_id)):
        assert (await callers.identify(headers)).policy == Policy(
            models=frozenset("a"), redact=True, redact_answers=False, store_content=True
        )
    assert (await callers.identify(bearer(team.member.access_token))).policy == Policy()


async def test_two_keys_that_begin_alike_are_two_people(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache by the beginning of a credential would make one of them the other (CVE-2026-35030)."""

    def made_of(bits: int) -> NewKey:
        with monkeypatch.context() as patched:
            patched.setattr("llm_gateway.keys.secrets.randbits", lambda _count: bits)
            return ring_of(stack).make()

    bits = uuid4().int << 32
    one, other = made_of(bits), made_of(bits + 1)
    assert one.secret[:34] == other.secret[:34]
    people = [await new_caller(stack, database) for _ in range(2)]
    for person, made in zip(people, (one, other), strict=True):
        await new_key(stack, database, person, made=made)
    found = [(await callers.identify(bearer(made.secret))).user_id for made in (one, other)]
    assert found == [person.user_id for person in people]


async def test_what_a_stolen_table_holds_opens_nothing(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    key = await new_key(stack, database, person)
    digest = await database.fetchval("select hmac from gateway.api_key_secrets where key_id = $1", key.id)
    for stolen in (digest.hex(), f"bt_live_{digest.hex()}", f"bt_live_{digest.hex()[:33]}", f"bt_{key.id}"):
        with pytest.raises(NotAuthenticated):
            await callers.identify(bearer(stolen))
    assert directory.questions == []


async def test_keys_that_somebody_made_up_ask_the_database_nothing(
    stack: RunningStack, callers: Callers, directory: CountingDirectory
) -> None:
    for n in range(1000):
        assert await code_of(callers, bearer(f"bt_live_{n:033d}")) == "api_key_invalid"
    assert directory.questions == []


async def test_a_thousand_callers_at_once_are_a_few_questions(
    stack: RunningStack, callers: Callers, directory: CountingDirectory, database: asyncpg.Connection
) -> None:
    """All but one with keys that are gone: no others get past the checksum."""
    ring = ring_of(stack)
    person = await new_caller(stack, database)
    key = await new_key(stack, database, person)
    gone = [ring.make().secret for _ in range(1000)]
    answers = await asyncio.gather(
        *(callers.identify(bearer(secret)) for secret in gone),
        callers.identify(bearer(key.secret)),
        return_exceptions=True,
    )
    assert isinstance(answers[-1], Caller)
    assert answers[-1].user_id == person.user_id
    assert all(isinstance(answer, NotAuthenticated) for answer in answers[:-1])
    assert sum(directory.questions) == 1001
    assert len(directory.questions) <= QUESTIONS_AT_ONCE + 1001 // CALLERS_A_QUESTION + 1


async def test_one_caller_many_times_at_once_is_one_question(
    callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    found = await asyncio.gather(*(callers.identify(bearer(person.access_token)) for _ in range(100)))
    assert {caller.user_id for caller in found} == {person.user_id}
    assert directory.questions == [1]


async def test_an_answer_is_kept_for_less_than_a_second_known_or_not(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    made = ring_of(stack).make()
    assert await code_of(callers, bearer(made.secret)) == "api_key_invalid"
    await new_key(stack, database, person, made=made)
    directory.now_s += FRESH_S - 0.01
    assert await code_of(callers, bearer(made.secret)) == "api_key_invalid"
    directory.now_s += 0.01
    assert (await callers.identify(bearer(made.secret))).user_id == person.user_id
    assert directory.questions == [1, 1]
    assert FRESH_S < 1


async def test_an_answer_that_was_long_in_coming_is_as_old_as_its_question(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    key = await new_key(stack, database, person)
    async with database.transaction():
        await database.execute("lock table gateway.api_keys in access exclusive mode")
        asking = asyncio.create_task(callers.identify(bearer(key.secret)))
        await eventually(lambda: waits_for_a_lock(stack))
        directory.now_s += FRESH_S
    assert (await asking).key_id == key.id
    await database.execute("update gateway.api_keys set revoked_at = now() where id = $1", key.id)
    assert await code_of(callers, bearer(key.secret)) == "api_key_revoked"


async def waits_for_a_lock(stack: RunningStack) -> bool:
    connection = await asyncpg.connect(stack.database_url)
    try:
        query = (
            "select count(*) from pg_stat_activity where application_name = 'callers-test' and wait_event_type = 'Lock'"
        )
        return bool(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_what_is_remembered_has_an_end(
    callers: Callers, directory: CountingDirectory, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "MOST_ANSWERS", 10)
    for _ in range(30):
        await code_of(callers, bearer(person.access_token, uuid4()))
    assert len(directory) == 10
    monkeypatch.setattr(directory_module, "MOST_WAITING", 10)
    answers = await asyncio.gather(
        *(callers.identify(bearer(person.access_token, uuid4())) for _ in range(30)), return_exceptions=True
    )
    codes = [answer.code for answer in answers if isinstance(answer, ButtressError)]
    assert (codes.count("not_a_member"), codes.count("callers_unavailable")) == (10, 20)


async def test_a_key_knows_when_it_was_last_used_to_the_minute(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    key = await new_key(stack, database, person)

    async def last_used_at() -> object:
        return await database.fetchval("select last_used_at from gateway.api_keys where id = $1", key.id)

    async def is_noted() -> bool:
        return await last_used_at() is not None

    async def use() -> None:
        directory.now_s += FRESH_S
        await callers.identify(bearer(key.secret))
        await directory.aclose()

    await use()
    await eventually(is_noted)
    first = await last_used_at()
    await use()
    assert await last_used_at() == first
    await database.execute(
        "update gateway.api_keys set last_used_at = now() - interval '61 seconds' where id = $1", key.id
    )
    before = await last_used_at()
    await use()
    assert await last_used_at() != before


async def test_a_refused_key_is_not_used(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    key = await new_key(stack, database, person)
    await database.execute("update gateway.api_keys set revoked_at = now() where id = $1", key.id)
    await code_of(callers, bearer(key.secret))
    await directory.aclose()
    assert await database.fetchval("select last_used_at from gateway.api_keys where id = $1", key.id) is None


async def test_a_directory_whose_connections_were_all_cut_finds_the_next_caller(
    stack: RunningStack, database: asyncpg.Connection, callers: Callers, directory: CountingDirectory, person: Person
) -> None:
    await callers.identify(bearer(person.access_token))
    await database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'callers-test'"
    )
    directory.now_s += FRESH_S
    assert (await callers.identify(bearer(person.access_token))).user_id == person.user_id
