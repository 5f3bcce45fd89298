"""What is counted is what happened, under names of ours alone, and counting costs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_gateway.accounting import TokenCounts
from llm_gateway.metrics import LedgerFigures, Metrics
from llm_gateway.observation import CallRecord
from llm_gateway.worker_figures import SHARED_FOLDER, render_everybody, shared_between_workers


def make_metrics() -> Metrics:
    return Metrics(models=["a/model", "b/model"], deployments=["a/model#1"], endpoints=["chat", "messages"])


def a_record(**changes: object) -> CallRecord:
    record = CallRecord(
        call_id="req_1",
        endpoint="chat",
        model="a/model",
        stream=True,
        status=200,
        error_code=None,
        outcome="ok",
        counts=TokenCounts(input=7, cached_input=3, output=11, reasoning=2),
        cost_nano_usd=1234,
        duration_s=0.3,
        ended_at_ns=0,
        overhead_s=0.0008,
        first_output_s=0.04,
        deployment="a/model#1",
    )
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and its labels: `name{a=x,b=y}`, labels in alphabetical order."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_a_finished_call_is_in_every_figure_it_belongs_to() -> None:
    metrics = make_metrics()
    metrics.finished(a_record())
    metrics.finished(a_record(first_output_s=None))
    found = samples(metrics)
    call = "endpoint=chat,model=a/model"
    assert found[f"buttress_llm_requests_total{{{call},status=2xx}}"] == 2
    assert found[f"buttress_llm_request_duration_seconds_count{{{call}}}"] == 2
    assert found[f"buttress_llm_request_duration_seconds_sum{{{call}}}"] == pytest.approx(0.6)
    assert found[f"buttress_llm_overhead_seconds_count{{{call}}}"] == 2
    assert found[f"buttress_llm_time_to_first_token_seconds_count{{{call}}}"] == 1
    assert found[f"buttress_llm_cost_nano_usd_total{{{call}}}"] == 2468
    tokens = {name: found[f"buttress_llm_tokens_total{{class={name},{call}}}"] for name in ("input", "cached_input")}
    assert tokens == {"input": 14, "cached_input": 6}
    assert found[f"buttress_llm_tokens_total{{class=output,{call}}}"] == 22
    assert found[f"buttress_llm_tokens_total{{class=reasoning,{call}}}"] == 4


@pytest.mark.parametrize(
    ("status", "kind"), [(200, "2xx"), (429, "4xx"), (499, "client_gone"), (503, "5xx"), (999, "other")]
)
def test_answers_are_told_apart_by_the_class_of_their_status(status: int, kind: str) -> None:
    metrics = make_metrics()
    metrics.refused(endpoint="messages", model="b/model", status=status)
    assert samples(metrics)[f"buttress_llm_requests_total{{endpoint=messages,model=b/model,status={kind}}}"] == 1


def test_names_that_clients_make_up_share_one_series() -> None:
    metrics = make_metrics()
    for position in range(500):
        metrics.refused(endpoint=f"/v1/{position}", model=f"made/up-{position}", status=404)
        metrics.finished(a_record(model=f"made/up-{position}", endpoint=f"x{position}"))
        metrics.provider_failed(f"nobody#{position}", "lost")
        metrics.tried_again(f"made/up-{position}", fallback=True)
    metrics.refused(endpoint="chat", model=None, status=400)
    text = metrics.render().decode()
    assert "made/up" not in text
    assert "nobody" not in text
    assert len(text) < 30_000
    assert samples(metrics)["buttress_llm_requests_total{endpoint=other,model=other,status=4xx}"] == 500


def test_events_are_counted_under_their_own_names() -> None:
    metrics = make_metrics()
    metrics.limit_reached(scope="workspace", limit="nano_usd_per_day")
    metrics.provider_failed("a/model#1", "rate_limited")
    metrics.tried_again("a/model", fallback=False)
    metrics.tried_again("b/model", fallback=True)
    metrics.cached("hit")
    metrics.denied("model_not_allowed")
    metrics.redacted("email", of="request", count=3)
    found = samples(metrics)
    assert found["buttress_llm_refusals_total{limit=nano_usd_per_day,scope=workspace}"] == 1
    assert found["buttress_llm_provider_errors_total{deployment=a/model#1,kind=rate_limited}"] == 1
    assert found["buttress_llm_retries_total{model=a/model}"] == 1
    assert found["buttress_llm_fallbacks_total{model=b/model}"] == 1
    assert found["buttress_llm_cache_total{event=hit}"] == 1
    assert found["buttress_llm_denials_total{rule=model_not_allowed}"] == 1
    assert found["buttress_llm_redactions_total{kind=email,of=request}"] == 3


def test_a_silent_ledger_keeps_its_last_figures_and_is_shown_as_down() -> None:
    metrics = make_metrics()
    metrics.sample(in_flight=4, backlog=2)
    standing = LedgerFigures(
        holds=3, held_tokens=900, held_nano_usd=5000, oldest_hold_s=12.5, subjects_in_debt=1, debt_nano_usd=77
    )
    metrics.sample_ledger(standing)
    metrics.sample_ledger(None)
    found = samples(metrics)
    assert found["buttress_llm_calls_in_flight{}"] == 4
    assert found["buttress_llm_settlement_backlog{}"] == 2
    assert found["buttress_llm_ledger_up{}"] == 0
    assert found["buttress_llm_held_nano_usd{}"] == 5000
    assert found["buttress_llm_oldest_hold_seconds{}"] == 12.5
    assert found["buttress_llm_debt_nano_usd{}"] == 77


def test_one_gateway_in_a_process_does_not_count_for_another() -> None:
    one, other = make_metrics(), make_metrics()
    one.finished(a_record())
    assert "buttress_llm_requests_total{" in one.render().decode()
    assert "buttress_llm_requests_total{" not in other.render().decode()


def test_workers_share_an_empty_folder_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SHARED_FOLDER, raising=False)
    with shared_between_workers(2):
        folder = Path(os.environ[SHARED_FOLDER])
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_a_single_worker_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SHARED_FOLDER, raising=False)
    with shared_between_workers(1):
        assert SHARED_FOLDER not in os.environ


def test_what_an_earlier_run_left_in_the_operators_folder_is_not_added(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SHARED_FOLDER, str(tmp_path))
    (tmp_path / "counter_17.db").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    with shared_between_workers(2):
        assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert tmp_path.exists()


def write_figures(folder: Path, process_id: int) -> None:
    """A process has counted one call, and is busy with another."""
    code = """
import os
from prometheus_client import values
values.ValueClass = values.MultiProcessValue(lambda: os.environ["PROCESS_ID"])
from prometheus_client import CollectorRegistry, Counter, Gauge
registry = CollectorRegistry()
Counter("calls", "", registry=registry).inc()
Gauge("busy", "", registry=registry, multiprocess_mode="livesum").set(1)
"""
    environ = {**os.environ, SHARED_FOLDER: str(folder), "PROCESS_ID": str(process_id)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)


def test_a_worker_that_is_just_making_its_file_spoils_nobodys_figures(tmp_path: Path) -> None:
    write_figures(tmp_path, os.getpid())
    (tmp_path / "counter_17.db").touch()
    rendered = render_everybody(str(tmp_path))
    assert b"calls_total 1.0" in rendered
    assert b"busy 1.0" in rendered


def test_what_a_dead_worker_counted_stays_and_what_it_was_busy_with_does_not(tmp_path: Path) -> None:
    for process_id in (os.getpid(), 2**22 + 1):  # the second one is more than any process can have
        write_figures(tmp_path, process_id)
    rendered = render_everybody(str(tmp_path))
    assert b"calls_total 2.0" in rendered
    assert b"busy 1.0" in rendered
