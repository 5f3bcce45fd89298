"""The stack as `./buttress` runs it: up, down, and every way it can lose a part or its head."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stack.config import ROOT
from stack.locks import try_lock
from stack.processes import Identity, command_line, group_members
from tests.support.pools import DEADLINE_VARIABLE
from tests.support.pools import PATIENCE_S as DATABASE_PATIENCE_S
from tests.support.stack import free_ports, temporary_state_dir

pytestmark = [pytest.mark.slow, pytest.mark.time_limit(200)]  # each starts a stack or two: ten seconds alone

PATIENCE_S = 90.0


class Copy:
    """One state folder with ports of its own, and the commands of a person who works with it."""

    def __init__(self, state_dir: Path, **more: str) -> None:
        names = ("BUTTRESS_PORT", "BUTTRESS_SUPABASE_PORT", "BUTTRESS_DB_PORT", "BUTTRESS_LLM_PORT")
        ports = {name: str(port) for name, port in zip(names, free_ports(4), strict=True)}
        ours = {name: value for name, value in os.environ.items() if not name.startswith("BUTTRESS_")}
        ours.pop("PYTHONUNBUFFERED", None)  # few people have it, and without it words may wait in a buffer
        self.state_dir = state_dir
        patience = {DEADLINE_VARIABLE: str(DATABASE_PATIENCE_S)}
        self.environ = {**ours, **ports, **patience, "BUTTRESS_STATE": str(state_dir), "BUTTRESS_LLM": "off", **more}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stack", *arguments],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command runs inside the block; it was told to end, and has ended, after it."""
        process = self.start(*arguments)
        assert process.stdout is not None
        with process.stdout:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                process.stdout.read()
                process.wait(timeout=PATIENCE_S)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and all that was said."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said

    def up(self) -> None:
        code, said = self.run("up", "--detach")
        assert code == 0, said

    def run_file(self) -> dict[str, object]:
        document = json.loads((self.state_dir / "run.json").read_text())
        assert isinstance(document, dict)
        return document

    def status(self) -> dict[str, object]:
        document = json.loads(self.run("status", "--json")[1])
        assert isinstance(document, dict)
        return document

    def is_well(self) -> bool:
        return self.run("status")[0] == 0

    def pids(self) -> dict[str, int]:
        """The processes of the parts, and of the supervisor and its lifeline."""
        document = json.loads((self.state_dir / "run.json").read_text())
        found = {part["name"]: int(part["pid"]) for part in document["parts"]}
        found["supervisor"] = int(document["supervisor"]["pid"])
        lifelines = Path(f"/proc/{found['supervisor']}/task/{found['supervisor']}/children")
        for child in map(int, lifelines.read_text().split()):
            if "stack.lifeline" in command_line(child):
                found["lifeline"] = child
        return found


def health(status: dict[str, object]) -> dict[str, str]:
    """What `status` says of each part."""
    assert isinstance(status["processes"], list)
    return {process["name"]: process["health"] for process in status["processes"]}


def everything(pids: dict[str, int]) -> list[Identity]:
    """Those processes and all that belong to their groups."""
    members = {member for pid in pids.values() for member in [pid, *group_members(pid)]}
    return [identity for pid in members if (identity := Identity.of(pid)) is not None]


def eventually(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S:.0f} s"
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """The process has said a line with these words. One that says nothing for too long is killed."""
    assert process.stdout is not None
    said = []
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.start()
    try:
        for line in process.stdout:
            said.append(line)
            if words in line:
                return
    finally:
        patience.cancel()
    raise AssertionError(f"it never said {words!r}, but {''.join(said)}")


def gone(processes: list[Identity]) -> bool:
    return not any(process.is_alive() for process in processes)


@pytest.fixture
def copy() -> Iterator[Copy]:
    with temporary_state_dir() as folder:
        made = Copy(folder / "state")
        yield made
        made.run("down")


def test_up_is_ready_when_it_returns_and_down_leaves_no_process_but_the_data(copy: Copy) -> None:
    code, said = copy.run("up", "--detach")
    assert code == 0, said
    assert "Buttress is up." in said
    status = copy.status()
    assert status["running"] is True
    with urllib.request.urlopen(f"{status['api_url']}/health/ready", timeout=PATIENCE_S) as answer:
        assert answer.status == 200
    # `status` itself waits for two seconds only
    eventually(lambda: health(copy.status()) == dict.fromkeys(("postgres", "supabase", "api"), "ok"), "health")
    assert str(status["gateway_url"]).endswith("/llm/v1")
    assert str(status["publishable_key"]).startswith("sb_publishable_")
    processes = everything(copy.pids())

    assert "already running" in copy.run("up")[1]
    code, said = copy.run("migrate", "status")
    assert code == 0
    assert "pending" not in said
    assert "Every migration was applied already." in copy.run("migrate", "up")[1]

    assert copy.run("down") == (0, "Everything has ended; the data stays.\n")
    assert gone(processes)
    assert copy.run("down") == (0, "Nothing is running.\n")
    assert copy.run("status")[0] == 1
    keys = copy.status()["publishable_key"]
    copy.up()
    assert copy.status()["publishable_key"] == keys


def test_logs_are_shown_by_part_and_followed(copy: Copy) -> None:
    assert "has not run yet" in copy.run("logs")[1]
    copy.up()
    code, said = copy.run("logs", "postgres", "-n", "500")
    assert code == 0
    assert "postgres | " in said
    assert "ready to accept connections" in said
    assert "There is no log of nothing" in copy.run("logs", "nothing")[1]
    with copy.started("logs", "--follow", "--lines", "1", "api") as follower:
        read_until(follower, "api | ")  # it has found the end of the file
        with (copy.state_dir / "logs" / "api.log").open("a") as log:
            log.write("a new line\n")
        read_until(follower, "api | a new line")


def test_killed_supervisor_takes_every_part_with_it(copy: Copy) -> None:
    copy.up()
    pids = copy.pids()
    processes = everything(pids)
    os.kill(pids["supervisor"], signal.SIGKILL)
    eventually(lambda: gone(processes), "the end of every part")


def test_up_cleans_up_after_supervisor_and_lifeline_were_both_killed(copy: Copy) -> None:
    copy.up()
    pids = copy.pids()
    processes = everything(pids)
    os.kill(pids["lifeline"], signal.SIGKILL)
    os.kill(pids["supervisor"], signal.SIGKILL)
    os.kill(pids["api"], signal.SIGKILL)  # its worker stays behind without it
    assert not gone(processes)
    copy.up()
    assert gone(processes)
    eventually(copy.is_well, "health")


def test_up_finds_a_postgres_that_nobody_recorded(copy: Copy) -> None:
    copy.up()
    pids = copy.pids()
    processes = everything(pids)
    os.kill(pids["lifeline"], signal.SIGKILL)
    os.kill(pids["supervisor"], signal.SIGKILL)
    document = copy.run_file()
    document["parts"] = [part for part in document["parts"] if part["name"] != "postgres"]  # type: ignore[attr-defined]
    (copy.state_dir / "run.json").write_text(json.dumps(document))
    copy.up()
    assert gone(processes)


@pytest.mark.parametrize("name", ["api", "supabase", "postgres"])
def test_part_that_crashes_is_named_and_started_again(copy: Copy, name: str) -> None:
    copy.up()
    before = copy.pids()
    left_behind = everything({name: before[name]})
    os.kill(before[name], signal.SIGKILL)
    eventually(lambda: copy.pids()[name] != before[name], f"another {name}")
    eventually(copy.is_well, "health")
    assert gone(left_behind)
    said = (copy.state_dir / "logs" / "stack.log").read_text()
    assert f"{name} was ended by SIGKILL; it is being started again." in said


def test_stack_stops_where_a_part_keeps_crashing(copy: Copy) -> None:
    copy.up()
    processes = everything(copy.pids())
    killed = set()
    while (copy.state_dir / "run.json").exists():
        try:
            pid = copy.pids()["api"]
        except (OSError, ValueError, KeyError):
            break
        if pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.05)
    eventually(lambda: gone(processes), "the end of every part")
    assert (
        "api ended more than 5 times within 60 s, so the stack stops."
        in (copy.state_dir / "logs" / "stack.log").read_text()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_foreground_leaves_nothing_behind(copy: Copy, number: signal.Signals) -> None:
    with copy.started("up") as process:
        read_until(process, "Ctrl-C ends everything")
        processes = everything(copy.pids())
        process.send_signal(number)
        read_until(process, "Everything has ended")
        assert process.wait(timeout=PATIENCE_S) == 0
    assert gone(processes)


def test_interrupted_start_leaves_nothing_behind(copy: Copy) -> None:
    process = copy.start("up")
    eventually(lambda: "supabase" in _parts(copy), "the start of Supabase")
    processes = everything(copy.pids())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said
    assert gone(processes)
    copy.up()


def test_down_waits_for_who_has_not_said_yet_which_process_it_is(copy: Copy) -> None:
    """Whoever starts, or has nearly ended, holds the lock without a run.json."""
    copy.state_dir.mkdir(parents=True)
    lock = try_lock(copy.state_dir / "lock")
    assert lock is not None
    down = copy.start("down")
    time.sleep(1)  # until it has looked; on a busy machine it looks later, and finds nobody
    os.close(lock)
    said, _ = down.communicate(timeout=PATIENCE_S)
    assert down.returncode == 0, said


def _parts(copy: Copy) -> set[str]:
    try:
        return set(copy.pids())
    except (OSError, ValueError):
        return set()


@pytest.mark.parametrize(
    ("variable", "purpose"),
    [
        ("BUTTRESS_PORT", "API"),
        ("BUTTRESS_SUPABASE_PORT", "Supabase"),
        ("BUTTRESS_DB_PORT", "PostgreSQL"),
    ],
)
def test_taken_port_is_named_with_the_variable_that_changes_it(copy: Copy, variable: str, purpose: str) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(copy.environ[variable])))
        other.listen()
        code, said = copy.run("up", "--detach")
    assert code == 1
    assert f"Port {copy.environ[variable]} ({purpose}) is taken by another program" in said
    assert f"set {variable} to a free port" in said
    assert "Traceback" not in said
    assert not (copy.state_dir / "run.json").exists()


def test_two_copies_run_side_by_side(copy: Copy) -> None:
    with temporary_state_dir() as folder:
        other = Copy(folder / "other")
        copy.up()
        other.up()
        assert copy.status()["publishable_key"] != other.status()["publishable_key"]
        assert copy.run("down")[0] == 0
        eventually(other.is_well, "health")
        assert other.run("down")[0] == 0


def test_production_refuses_the_embedded_stack(tmp_path: Path) -> None:
    code, said = Copy(tmp_path / "state", BUTTRESS_ENV="production").run("up", "--detach")
    assert code == 1
    assert "The embedded stack is for development and tests" in said
    assert not (tmp_path / "state").exists()


def test_production_refuses_embedded_secrets(copy: Copy) -> None:
    copy.up()
    secrets = json.loads((copy.state_dir / "secrets.json").read_text())
    production = {
        "BUTTRESS_ENV": "production",
        "BUTTRESS_SUPABASE_URL": "https://project.example",
        "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": secrets["publishable_key"],
        "BUTTRESS_JWT_SECRET": secrets["jwt_secret"],
        "BUTTRESS_GATEWAY_DATABASE_URL": f"postgresql://gateway_service:{secrets['gateway_service_password']}@db/postgres",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from core.settings import load_settings; load_settings()"],
        cwd=ROOT,
        env={**os.environ, **production},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for name in ("SUPABASE_PUBLISHABLE_KEY", "JWT_SECRET", "GATEWAY_DATABASE_URL"):
        assert f"BUTTRESS_{name}: is a secret of the embedded development stack" in done.stderr


def test_state_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = Copy(tmp_path / "file" / "state").run("up", "--detach")
    assert code == 1
    assert f"The state folder {tmp_path / 'file' / 'state'} cannot be used" in said
    assert "BUTTRESS_STATE" in said


def test_reset_asks_before_it_deletes_and_leaves_what_is_not_its_own(copy: Copy) -> None:
    copy.up()
    before = copy.status()["publishable_key"]
    (copy.state_dir / "letter.txt").write_text("mine")
    code, said = copy.run("reset")
    assert code == 1
    assert "Pass --yes" in said
    eventually(copy.is_well, "health")
    processes = everything(copy.pids())
    assert copy.run("reset", "--yes")[0] == 0
    assert gone(processes)
    assert (copy.state_dir / "letter.txt").read_text() == "mine"
    assert not (copy.state_dir / "postgres").exists()
    copy.up()
    assert copy.status()["publishable_key"] != before


def test_dev_starts_the_api_again_when_its_source_changes_and_after_a_crash_waits_for_the_next_change(
    copy: Copy,
) -> None:
    with copy.started("dev") as process:
        read_until(process, "Ctrl-C ends everything")
        before = copy.pids()["api"]
        source = ROOT / "api" / "__init__.py"
        source.touch()
        read_until(process, "api/__init__.py changed; the API is being started again")
        eventually(lambda: copy.pids().get("api", before) != before, "another API")
        os.kill(copy.pids()["api"], signal.SIGKILL)
        read_until(process, "api was ended by SIGKILL; it waits for the next change.")
        source.touch()
        read_until(process, "api/__init__.py changed; the API is being started again")
        eventually(copy.is_well, "health")


def test_command_that_does_not_exist_is_not_understood(tmp_path: Path) -> None:
    code, said = Copy(tmp_path / "state").run("upp")
    assert code == 2
    assert "invalid choice" in said
