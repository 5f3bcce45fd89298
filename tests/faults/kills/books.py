"""The provider's bill and the ledger's rows beside each other, joined on the call's id."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.kills.world import LEASE_S, World
from tests.support.eventually import eventually
from tests.support.fake_provider.bill import BillLine

Row = Mapping[str, object]  # of gateway.usage

MOST_OVERDUE_S = 60.0
_EXAMPLES = 5

_METERS_THAT_DIFFER = """
    with charged as (
        select subject.scope, subject.id, calls.*
        from (
            select user_id, key_id, workspace_id, 1 as in_flight, tokens as held_tokens, cost_nano_usd as held_nano_usd,
                0 as tokens, 0 as nano_usd
            from gateway.holds
            union all
            select user_id, key_id, workspace_id, 0, 0, 0,
                input_tokens + cached_input_tokens + cache_write_5m_tokens + cache_write_1h_tokens + input_audio_tokens
                    + output_tokens + reasoning_tokens + output_audio_tokens,
                cost_nano_usd
            from gateway.usage
        ) as calls
        cross join lateral (
            values ('user', user_id), ('key', key_id), ('workspace', workspace_id)
        ) as subject (scope, id)
    ),
    sums as (
        select scope, id as subject_id, sum(in_flight) as in_flight, sum(held_tokens) as held_tokens,
            sum(held_nano_usd) as held_nano_usd, sum(tokens) as day_tokens, sum(nano_usd) as month_nano_usd
        from charged
        where user_id = any ($1) and id is not null
        group by scope, id
    )
    select scope, subject_id, to_jsonb(meters) as meter, to_jsonb(sums) as sums
    from sums
    left join gateway.meters as meters using (scope, subject_id)
    where (meters.in_flight, meters.held_tokens, meters.held_nano_usd, meters.day_tokens, meters.month_nano_usd)
        is distinct from (sums.in_flight, sums.held_tokens, sums.held_nano_usd, sums.day_tokens, sums.month_nano_usd)
"""


@dataclass(slots=True)
class Billed:
    """What the provider saw, by call id, over all rounds; and what went otherwise than planned."""

    lines: dict[str, list[BillLine]] = field(default_factory=lambda: defaultdict(list))
    faults: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0  # calls that were under way at a kill, summed
    reached: int = 0  # rounds whose calls all were where they should be

    def add(self, world: World) -> None:
        """The provider's bill as it stands is noted. The provider must be idle."""
        ids = {seen.number: seen.headers["x-client-request-id"] for seen in world.provider.requests()}
        for line in world.provider.bill().lines:
            self.lines[ids[line.number]].append(line)


def _worked(line: BillLine) -> bool:
    return line.outcome not in ("refused", "no_answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of it: calls that the provider worked on, how the ledger has them, and every problem by its kind."""

    billed: int
    states: dict[str, int]
    exact: int
    overdue_s: float
    faults: dict[str, list[str]]

    @property
    def problems(self) -> list[str]:
        """A sentence for everything that should not be."""
        found = [f"{len(ids)} times a {what}: {', '.join(ids[:_EXAMPLES])}" for what, ids in self.faults.items() if ids]
        if self.overdue_s > MOST_OVERDUE_S:
            found.append(f"a hold outlived its lease by {self.overdue_s:.0f} s")
        if not self.exact:
            found.append("no call was settled with the provider's own figures, so nothing was compared")
        return found


async def judge(world: World, billed: Billed) -> Verdict:
    """The books at the end, once nothing is held any more, or the time for that is over."""
    users = [person.user_id for person in world.people]
    async with world.database() as database:

        async def nothing_is_held() -> bool:
            return not await database.fetchval("select count(*) from gateway.holds where user_id = any ($1)", users)

        with suppress(AssertionError):
            await eventually(nothing_is_held, timeout_s=LEASE_S + MOST_OVERDUE_S)
        rows = await database.fetch("select * from gateway.usage where user_id = any ($1)", users)
        held = await database.fetch("select request_id from gateway.holds where user_id = any ($1)", users)
        meters = await database.fetch(_METERS_THAT_DIFFER, users)
    faults = compare([dict(row) for row in rows], billed)
    faults["call still held"] = [row["request_id"] for row in held]
    faults["meter that is not the sum of its calls"] = [f"{row['meter']} is {row['sums']}" for row in meters]
    faults["round otherwise than planned"] = [*billed.faults, *world.faults]
    return Verdict(
        billed=sum(any(map(_worked, lines)) for lines in billed.lines.values()),
        states=dict(Counter(row["state"] for row in rows)),
        exact=sum(row["state"] == "settled" and not row["estimated"] for row in rows),
        overdue_s=world.overdue_s,
        faults=faults,
    )


def compare(rows: Sequence[Row], billed: Billed) -> dict[str, list[str]]:
    """The ids of the calls about which the provider's bill and the ledger's rows differ, by what is wrong with them."""
    by_id: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_id[str(row["request_id"])].append(row)
    faults: dict[str, list[str]] = defaultdict(list)
    for call_id, lines in billed.lines.items():
        worked = [line for line in lines if _worked(line)]
        if len(worked) > 1:
            faults["call that the provider worked on twice"].append(call_id)
        if worked and not by_id[call_id]:
            faults["lost usage row"].append(f"{call_id} {worked[0].outcome}")
        for row in by_id[call_id] if worked else ():
            if (fault := _fault(row, worked[0])) is not None:
                faults[fault].append(call_id)
    for call_id, found in by_id.items():
        if len(found) > 1:
            faults["second usage row"].append(call_id)
        if found and found[0]["state"] == "settled" and not found[0]["estimated"] and call_id not in billed.lines:
            faults["settlement without a call at the provider that claims to be exact"].append(call_id)
    return faults


def _fault(row: Row, line: BillLine) -> str | None:
    if row["state"] == "voided":
        return "voided call that the provider worked on"
    if row["estimated"]:
        return None
    if not line.usage_reported:
        return "estimate that is not flagged"
    return None if _equal(row, line) else "settlement other than the provider counted"


def _equal(row: Row, line: BillLine) -> bool:
    return (row["input_tokens"], row["cached_input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (
        line.input_tokens - line.cached_input_tokens,
        line.cached_input_tokens,
        line.output_tokens - line.reasoning_tokens,
        line.reasoning_tokens,
    )
