"""The tables of a run over all gateways."""

from collections.abc import Iterable, Sequence

from tests.load.measure import Measured
from tests.load.peers.run import PROVIDER, Row


def as_markdown(machine: str, rows: Sequence[Row]) -> str:
    """Two tables; rows are comparable with other rows of the same run only."""
    parts = [
        f"Machine: {machine}. Load, provider, gateways and their stores share these cores.",
        "### Chat completions, not streamed",
        _table(
            ["", "on", "clients", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms", "CPU µs", "RSS MB"],
            _call_rows([row for row in rows if not row.is_stream]),
        ),
        "### Streams at once",
        _table(
            [
                "",
                "streams",
                "chunks/s",
                "first token p50 ms",
                "p99 ms",
                "whole p50 ms",
                "CPU µs a chunk",
                "RSS MB",
            ],
            _stream_rows([row.measured for row in rows if row.is_stream]),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines)


def _call_rows(rows: Sequence[Row]) -> Iterable[list[str]]:
    bare = {row.measured.clients: row.measured for row in rows if row.measured.name == PROVIDER}
    for row in rows:
        one = row.measured
        base = bare[one.clients]
        added = [one.p50_ms - base.p50_ms, one.p99_ms - base.p99_ms]
        yield [
            one.name,
            row.what_is_on,
            str(one.clients),
            f"{one.per_s:,.0f}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            *("" if one is base else f"{value:.2f}" for value in added),
            _own_cpu(one.cpu_us_per_answer, "{:.0f}"),
            _rss(one),
        ]


def _stream_rows(rows: Sequence[Measured]) -> Iterable[list[str]]:
    for row in rows:
        yield [
            row.name,
            str(row.clients),
            f"{row.events_per_s:,.0f}",
            f"{row.first_token_p50_ms or 0:.1f}",
            f"{row.first_token_p99_ms or 0:.1f}",
            f"{row.p50_ms:,.0f}",
            _own_cpu(row.cpu_us_per_event, "{:.1f}"),
            _rss(row),
        ]


def _own_cpu(used_us: dict[str, float], form: str) -> str:
    """Each process of the gateway and its store by itself: `api 300 + postgres 120`."""
    own = {part: used for part, used in used_us.items() if part != "generator"}
    return " + ".join(f"{part} {form.format(used)}" for part, used in own.items())


def _rss(row: Measured) -> str:
    return " + ".join(f"{used:.0f}" for used in row.rss_mb.values())
