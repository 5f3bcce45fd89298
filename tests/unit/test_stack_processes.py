"""Only what the stack started is ever signalled, and nothing of it outlives the order to end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.config import ROOT
from stack.errors import PartFailed
from stack.http_probe import require_free_port
from stack.processes import Child, Identity, Part, Record, command_line, end, group_members
from tests.support.stack import free_ports

SLEEPS = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)
# Parents live until they are told to go: who they are is asked before.
PARENT = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {str(ROOT)!r}]).pid, flush=True)
sys.stdin.read()
"""
# The more memory and threads, the longer the kernel takes between the signal and the end.
SERVER = """
import socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
memory = bytes(150_000_000).replace(b"\\0" * 4096, b"\\1" * 4096)
for _ in range(8):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
"""
PARENT_OF_A_SERVER = f"""
import subprocess, sys
server = subprocess.Popen(
    [sys.executable, "-c", {SERVER!r}, sys.argv[1], {str(ROOT)!r}], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
)
server.stdout.readline()
print("ready", flush=True)
sys.stdin.read()
"""
ONLY_A_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPS], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def part(program: str, log_file: Path, *, grace_s: float = 60.0) -> Part:
    return Part(name="part", command=[sys.executable, "-c", program], environ={}, log_file=log_file, grace_s=grace_s)


def test_process_with_the_number_of_a_recorded_one_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    earlier = Record("earlier", Identity(sleeper.pid, "another boot/1"), signal.SIGTERM)
    end([earlier], grace_s=0.1)
    assert sleeper.poll() is None


def test_recorded_process_ends(sleeper: subprocess.Popen[bytes]) -> None:
    identity = Identity.of(sleeper.pid)
    assert identity is not None
    end([Record("sleeper", identity, signal.SIGTERM)], grace_s=60)
    assert not identity.is_alive()
    assert sleeper.wait(timeout=60) == -signal.SIGTERM


def test_ended_process_is_not_alive_before_it_is_reaped(sleeper: subprocess.Popen[bytes]) -> None:
    identity = Identity.of(sleeper.pid)
    assert identity is not None
    end([Record("sleeper", identity, signal.SIGKILL)], grace_s=60)
    assert Identity.of(sleeper.pid) is None
    assert Identity.of(2**22 + 1) is None


def gone(program: str, *arguments: str) -> tuple[Record, bytes]:
    """A leader that started others, said a line and has ended."""
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as leader:
        assert leader.stdin is not None
        assert leader.stdout is not None
        line = leader.stdout.readline()
        identity = Identity.of(leader.pid)
        assert identity is not None
        leader.stdin.close()
        leader.wait(timeout=60)
    return Record("leader", identity, signal.SIGTERM), line


@pytest.mark.skipif(sys.platform != "linux", reason="ps does not always say it")
def test_killed_process_is_ending_until_it_is_gone() -> None:
    def seen_ending() -> bool:
        process = subprocess.Popen([sys.executable, "-c", SERVER, "0"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
        identity = Identity.of(process.pid)
        assert identity is not None
        assert not identity.is_ending()
        process.kill()
        seen = identity.is_ending()
        process.wait()
        assert not identity.is_ending()
        return seen

    assert any(seen_ending() for _ in range(20))  # one look, which comes too late where we had to wait for our turn


def test_what_a_dead_leader_left_in_its_group_is_killed() -> None:
    leader, orphan = gone(PARENT)
    assert group_members(leader.identity.pid) == [int(orphan)]
    end([leader], grace_s=0.1)
    assert group_members(leader.identity.pid) == []


def test_port_of_what_was_killed_is_free_at_once() -> None:
    [port] = free_ports(1)
    leader, ready = gone(PARENT_OF_A_SERVER, str(port))
    assert ready == b"ready\n"
    end([leader], grace_s=0.1)
    require_free_port(port, "BUTTRESS_PORT", "API")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the end of the main thread is the end of the process")
def test_process_lives_until_its_last_thread_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", ONLY_A_THREAD], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    identity = Identity.of(process.pid)
    assert identity is not None
    with process.stdout:
        process.stdout.readline()
    while command_line(process.pid):  # its main thread takes it along
        assert process.poll() is None
    assert identity.is_alive()
    end([Record("process", identity, signal.SIGKILL)], grace_s=60)
    assert not identity.is_alive()
    assert process.wait(timeout=60) == -signal.SIGKILL


def test_part_that_ignores_the_order_is_killed_after_its_grace(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    child = Child.start(part(STUBBORN, log, grace_s=0.2), cwd=ROOT)
    while "ready" not in log.read_text():
        child.require_running()
    child.stop()
    assert child.exit_code() == -signal.SIGKILL


def test_part_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child.start(part("print('no such table'); raise SystemExit(3)", tmp_path / "part.log"), cwd=ROOT)
    child.process.wait(timeout=60)
    with pytest.raises(PartFailed, match=r"part ended with exit code 3\.[\s\S]*no such table"):
        child.require_running()


def test_part_that_was_killed_is_reported_with_the_signal(tmp_path: Path) -> None:
    child = Child.start(part(SLEEPS, tmp_path / "part.log"), cwd=ROOT)
    child.process.kill()
    child.process.wait(timeout=60)
    with pytest.raises(PartFailed, match="part was ended by SIGKILL"):
        child.require_running()


def test_command_line_of_a_process_is_readable() -> None:
    assert Path(sys.executable).name in command_line(os.getpid())
    assert command_line(2**22 + 1) == ""
