"""The report as Markdown tables and as JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from statistics import median

import orjson

from tests.load.measure import Measured
from tests.load.scenarios import PROVIDER, Report


def as_json(report: Report) -> str:
    """Every figure of the run."""
    return orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2).decode()


def as_markdown(report: Report) -> str:
    """The tables a person reads; figures of one row are comparable with those of another row of the same run only."""
    parts = [
        f"Machine: {report.machine}. Everything (load, provider, API, PostgreSQL) runs on these cores.",
        "### Chat completions, not streamed: identity, all limits and durable usage on",
        _table(
            [
                "",
                "clients",
                "requests/s",
                "p50 ms",
                "p99 ms",
                "added p50 ms",
                "added p99 ms",
                *_CPU_HEADS,
                "API RSS MB",
            ],
            _call_rows(report.calls),
        ),
        f"### {report.streams[0].clients} streams of {_events(report.streams[0]):.0f} events",
        _table(
            ["", "events/s", "first token p50 ms", "p99 ms", "added p50 ms", "CPU µs/event: API", "provider", "load"],
            _stream_rows(report.streams),
        ),
        "### API reads beside PostgREST itself",
        _table(
            ["", "clients", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "CPU µs: API", "Supabase", "PostgreSQL"],
            _request_rows(report.requests),
        ),
        "### Cold start of the API",
        _table(["live ms", "first GET /v1/me ms", "RSS MB"], [_cold_row(report)]),
        _accounts(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_CPU_HEADS = ("CPU µs: API", "PostgreSQL", "provider", "load")


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines)


def _call_rows(rows: list[Measured]) -> Iterable[list[str]]:
    bare = {row.clients: row for row in rows if row.name == PROVIDER}
    for row in rows:
        base, cpu = bare[row.clients], row.cpu_us_per_answer
        yield [
            row.name,
            str(row.clients),
            f"{row.per_s:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            _added(row.p50_ms, base.p50_ms, row is base),
            _added(row.p99_ms, base.p99_ms, row is base),
            *(_cpu(cpu[part], row is base, part) for part in ("api", "postgres")),
            f"{cpu['provider']:.0f}",
            f"{cpu['generator']:.0f}",
            "" if row is base else f"{row.rss_mb['api']:.0f}",
        ]


def _added(value: float, base: float, is_base: bool) -> str:
    return "" if is_base else f"{value - base:.2f}"


def _cpu(value: float, is_base: bool, part: str) -> str:
    return "" if is_base and part != "provider" else f"{value:.0f}"


def _events(row: Measured) -> float:
    return row.events / max(row.answers, 1)


def _stream_rows(rows: list[Measured]) -> Iterable[list[str]]:
    base = rows[0]
    for row in rows:
        cpu = row.cpu_us_per_event
        yield [
            row.name,
            f"{row.events_per_s:,.0f}",
            f"{row.first_token_p50_ms or 0:.2f}",
            f"{row.first_token_p99_ms or 0:.2f}",
            _added(row.first_token_p50_ms or 0, base.first_token_p50_ms or 0, row is base),
            "" if row is base else f"{cpu.get('api', 0):.1f}",
            f"{cpu.get('provider', 0):.1f}",
            f"{cpu.get('generator', 0):.1f}",
        ]


def _request_rows(rows: list[Measured]) -> Iterable[list[str]]:
    base = rows[0]
    for row in rows:
        is_base = row.name.startswith("PostgREST")
        base = row if is_base else base
        cpu = row.cpu_us_per_answer
        yield [
            row.name,
            str(row.clients),
            f"{row.per_s:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            _added(row.p50_ms, base.p50_ms, is_base),
            "" if is_base else f"{cpu['api']:.0f}",
            f"{cpu['supabase']:.0f}",
            f"{cpu['postgres']:.0f}",
        ]


def _cold_row(report: Report) -> list[str]:
    starts = report.cold_starts
    return [
        f"{median(one.live_ms for one in starts):.0f}",
        f"{median(one.first_answer_ms for one in starts):.0f}",
        f"{median(one.rss_mb for one in starts):.0f}",
    ]


def _accounts(report: Report) -> str:
    one = report.accounts
    if one is None:
        return ""
    ledger = f"the ledger settled {one.ledger_calls:,} calls and {one.ledger_tokens:,} tokens"
    bill = f"the provider's own bill has {one.provider_calls:,} calls and {one.provider_tokens:,} tokens"
    return f"Accounts {'agree' if one.agree else 'DIFFER'}: {ledger}; {bill}."
