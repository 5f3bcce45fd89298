"""What the stack decides without starting anything: configuration, secrets, locks, restarts, changed source."""

import fcntl
import io
import json
import os
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import EMBEDDED_MARKER
from stack.config import load_config
from stack.embedded import make_state_dir
from stack.environment import service_environment
from stack.errors import StackError
from stack.greeting import greeting
from stack.http_probe import require_free_port
from stack.local_model import model_path
from stack.locks import exclusive_lock, is_locked, try_lock
from stack.processes import log_tail
from stack.progress import Progress
from stack.restarts import MOST_ENDS, WINDOW_S, Restarts
from stack.run_state import read_run_state
from stack.secrets import EMBEDDED_MARK, load_or_make_secrets
from stack.source_watch import SourceWatch
from stack.supervisor import require_usable_settings
from tests.support.stack import free_config


def test_defaults_are_the_documented_ports() -> None:
    config = load_config({})
    assert (config.api_port, config.supabase_port, config.db_port, config.llm_port) == (8000, 54321, 54322, 54330)
    assert config.gateway_url == "http://127.0.0.1:8000/llm/v1"
    assert config.llm_enabled


def test_model_is_left_out_on_demand() -> None:
    assert not load_config({"BUTTRESS_LLM": "off"}).llm_enabled


@pytest.mark.parametrize("text", ["0", "65536", "-1", "eight", "80 80", "٨٠٨٠"])
def test_variable_that_is_no_port_is_named(text: str) -> None:
    with pytest.raises(StackError, match=r"BUTTRESS_DB_PORT is .* no port"):
        load_config({"BUTTRESS_DB_PORT": text})


def test_two_parts_on_one_port_are_named() -> None:
    with pytest.raises(StackError, match="BUTTRESS_PORT and BUTTRESS_SUPABASE_PORT are both 54321"):
        load_config({"BUTTRESS_PORT": "54321"})


def test_secrets_are_random_for_each_folder_marked_and_readable_by_the_owner_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    secrets = load_or_make_secrets(one)
    assert load_or_make_secrets(one) == secrets
    assert load_or_make_secrets(other) != secrets
    assert (one / "secrets.json").stat().st_mode & 0o777 == 0o600
    values = json.loads((one / "secrets.json").read_text()).values()
    assert all(EMBEDDED_MARK in value for value in values)
    assert len(set(values)) == len(values)
    assert not any(value in repr(secrets) for value in values)


def test_production_knows_the_mark_of_embedded_secrets() -> None:
    assert EMBEDDED_MARK == EMBEDDED_MARKER


def test_damaged_secrets_are_not_replaced_behind_the_datas_back(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(StackError, match="damaged"):
        load_or_make_secrets(tmp_path)


def test_services_of_an_embedded_stack_get_everything_they_need(tmp_path: Path) -> None:
    config = free_config(tmp_path)
    environment = service_environment(config, load_or_make_secrets(tmp_path))
    assert environment["BUTTRESS_SUPABASE_URL"] == config.supabase_url
    assert "gateway_service" in environment["BUTTRESS_GATEWAY_DATABASE_URL"]
    assert "BUTTRESS_LLM_URL" not in environment


def test_supabase_of_the_callers_own_is_left_to_the_callers_environment(tmp_path: Path) -> None:
    config = load_config({"BUTTRESS_SUPABASE_URL": "https://project.example"})
    environment = service_environment(config, load_or_make_secrets(tmp_path))
    assert config.external_supabase
    assert set(environment) == {"BUTTRESS_LLM_URL"}


def test_settings_the_services_would_refuse_are_named_before_anything_starts(tmp_path: Path) -> None:
    environment = service_environment(free_config(tmp_path), load_or_make_secrets(tmp_path))
    require_usable_settings(environment)
    with pytest.raises(StackError, match=r"(?s)BUTTRESS_ENV.*BUTTRESS_CORS_ORIGINS"):
        require_usable_settings({**environment, "BUTTRESS_ENV": "prod", "BUTTRESS_CORS_ORIGINS": "*"})


def test_file_in_the_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.touch()
    with pytest.raises(StackError, match=re.escape(f"{file} is a file. Set BUTTRESS_STATE")):
        make_state_dir(free_config(file))


def test_quoted_log_lines_are_cut(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("x" * 10_000 + "\nshort\n")
    assert len(log_tail(log)) < 1000
    assert log_tail(log).endswith("    short")


def test_lock_is_held_once_and_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with exclusive_lock(path):
        assert try_lock(path) is None
        assert is_locked(path)
    descriptor = try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_who_only_looks_at_a_lock_is_in_nobodys_way(tmp_path: Path) -> None:
    """`status`, asked again and again while the stack starts, must not be taken for another stack."""
    path = tmp_path / "lock"
    with path.open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert not is_locked(path)
        looks_no_more = threading.Timer(0.1, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        looks_no_more.start()
        descriptor = try_lock(path, patience_s=60)
        looks_no_more.join()
    assert descriptor is not None
    assert is_locked(path)
    os.close(descriptor)


def test_part_is_started_again_later_each_time_and_given_up_on() -> None:
    restarts = Restarts()
    waits = []
    for now_s in range(MOST_ENDS):
        assert restarts.note_end(float(now_s))
        assert restarts.due_at is not None
        waits.append(restarts.due_at - now_s)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert not restarts.note_end(float(MOST_ENDS))


def test_ends_of_more_than_a_minute_ago_are_forgiven() -> None:
    restarts = Restarts()
    for number in range(3 * MOST_ENDS):
        assert restarts.note_end(number * (WINDOW_S / MOST_ENDS + 1))


def test_changed_new_and_removed_source_is_noticed_once(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("a = 1")
    (tmp_path / "notes.txt").touch()
    watch = SourceWatch([tmp_path])
    assert watch.changed_file() is None
    os.utime(source, ns=(1, 1))
    assert watch.changed_file() == source
    assert watch.changed_file() is None
    (tmp_path / "notes.txt").write_text("no source")
    assert watch.changed_file() is None
    source.unlink()
    assert watch.changed_file() == source


@pytest.mark.parametrize("text", ["", "{", "[]", '{"supervisor": {"pid": 1}}'])
def test_unreadable_run_file_means_that_nothing_is_known_to_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    assert read_run_state(path) is None


def test_low_port_or_taken_port_is_refused_with_its_variable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(StackError, match=rf"Port {port} \(API\) is taken .* BUTTRESS_PORT"):
            require_free_port(port, "BUTTRESS_PORT", "API")


def test_weights_of_the_local_model_are_found_without_importing_their_package() -> None:
    assert model_path().stat().st_size > 90_000_000


def test_step_says_how_long_it_took_and_whether_it_failed() -> None:
    stream = io.StringIO()

    def fail() -> None:
        with Progress(stream).step("something"):
            raise StackError("no")

    with Progress(stream).step("work"), Progress(None).step("silent"):
        pass
    with pytest.raises(StackError):
        fail()
    assert re.fullmatch(r"  work … \d+\.\d s\n  something … failed\n", stream.getvalue())


@pytest.mark.parametrize("llm_enabled", [True, False])
def test_greeting_offers_the_first_request_only_where_a_model_answers_it(tmp_path: Path, llm_enabled: bool) -> None:
    config = replace(load_config({"BUTTRESS_STATE": str(tmp_path)}), llm_enabled=llm_enabled)
    text = greeting(config, load_or_make_secrets(tmp_path))
    assert ("chat/completions" in text) is llm_enabled
    assert ("BUTTRESS_LLM=off" in text) is not llm_enabled
