"""The benchmark command runs, answers every request, and prints each row that it promises."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_prints_a_row_for_everything_it_compares(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.load", "--quick", "--clients", "1,2", "--answers-per-client", "5"]
    outcome = subprocess.run(
        [*command, "--streams", "2", "--json", str(tmp_path / "bench.json")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    rows = [line.split("|")[1].strip() for line in outcome.stdout.splitlines() if line.startswith("|")]
    for row, times in {
        "bare provider": 3,  # two numbers of clients, and the streams
        "gateway": 3,
        "gateway, one user": 1,
        "PostgREST profiles": 2,
        "GET /v1/me": 2,
        "PostgREST workspaces": 2,
        "GET /v1/workspaces": 2,
    }.items():
        assert rows.count(row) == times, row
    assert "Accounts agree" in outcome.stdout
    figures = orjson.loads((tmp_path / "bench.json").read_bytes())
    assert all(row["answers"] == 5 * row["clients"] for row in [*figures["calls"], *figures["requests"]])
    assert [row["events"] for row in figures["streams"]] == [206, 206]
    assert figures["cold_starts"][0]["rss_mb"] > 0
