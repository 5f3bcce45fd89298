"""The launcher, run by a real Python in a copy of the repository, with a stand-in for uv that notes what it is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# What uv does here: makes an environment that is the tests' own, notes its arguments, and fails or waits when told to.
UV = f"""#!{sys.executable}
import os, sys
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("uv 0.13.8")
    sys.exit()
with open(os.environ["UV_NOTES"], "a") as notes:
    print(*arguments, file=notes)
if arguments[0] == "venv":
    folder = arguments[-1]
    os.makedirs(folder + "/bin", exist_ok=True)
    for name in os.listdir(folder):
        if "--clear" in arguments and name.startswith(".buttress"):
            os.unlink(folder + "/" + name)
    if not os.path.exists(folder + "/bin/python"):
        os.symlink({sys.executable!r}, folder + "/bin/python")
elif os.environ.get("UV_WAITS_FOR"):
    with open(os.environ["UV_STARTED"], "w"):
        pass
    with open(os.environ["UV_WAITS_FOR"]) as gate:
        gate.read()
if os.environ.get("UV_SAYS") and arguments[0] == "pip":
    print(os.environ["UV_SAYS"], file=sys.stderr)
    sys.exit(1)
"""
COMMAND = """
import os, sys
print("ran", *sys.argv[1:], "in", os.getcwd(), "state", os.environ.get("BUTTRESS_STATE"))
"""
NO_PIP = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pip", "ensurepip"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
"""


class Copy:
    """A repository with the real launcher, two lock files and a command that says that it ran."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        self.programs = folder / "programs"
        self.notes_file = folder / "notes"
        self.started_file = folder / "started"
        (self.root / "stack").mkdir(parents=True)
        self.programs.mkdir()
        shutil.copy(REPOSITORY / "buttress", self.root / "buttress")
        (self.root / "stack" / "__init__.py").touch()
        (self.root / "stack" / "__main__.py").write_text(COMMAND)
        (self.root / "stack" / "requirements-uv.lock").write_text("uv==0.13.8\n")
        (self.root / "requirements.lock").write_text("one==1\n")
        (self.root / "requirements-dev.lock").write_text("one==1\ntwo==2\n")
        (self.programs / "uv").write_text(UV)
        (self.programs / "uv").chmod(0o755)

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.programs), "HOME": str(self.root.parent), "UV_NOTES": str(self.notes_file)} | more

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.root / "buttress"), *arguments],
            env=self.environ() if environ is None else dict(environ),
            cwd=self.root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*arguments, environ=environ)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def uv_calls(self) -> list[str]:
        """What uv was told since the last call."""
        calls = self.notes_file.read_text().splitlines() if self.notes_file.exists() else []
        self.notes_file.unlink(missing_ok=True)
        return calls

    def start_and_wait_until_installing(self) -> tuple[subprocess.Popen[str], Path]:
        """A launcher whose uv is in the middle of its work; it goes on once the returned gate is opened for writing."""
        gate = self.root.parent / "gate"
        os.mkfifo(gate)
        os.mkfifo(self.started_file)
        more = {"UV_WAITS_FOR": str(gate), "UV_STARTED": str(self.started_file)}
        process = self.start("status", environ=self.environ(**more))
        self.started_file.read_text()
        return process, gate


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_first_use_makes_the_environment_and_runs_the_command(copy: Copy) -> None:
    code, out, err = copy.run("status", "--json")
    assert (code, err) == (0, "")
    assert "Installing the Python packages of requirements.lock … " in out
    assert f"ran status --json in {copy.root}" in out
    venv, install = copy.uv_calls()
    assert venv.startswith("venv --clear")
    assert "--require-hashes" in install
    assert "--compile-bytecode" in install  # or each start of the API would compile it all anew
    assert "--no-deps" in install


def test_second_use_installs_nothing(copy: Copy) -> None:
    copy.run("status")
    copy.uv_calls()
    code, out, _ = copy.run("status")
    assert code == 0
    assert copy.uv_calls() == []
    assert "Installing" not in out


def test_an_environment_beside_the_main_one_is_made_once_for_each_lock_file(copy: Copy) -> None:
    (copy.root / "requirements-other.lock").write_text("three==3\n")
    code, out, err = copy.run("side-environment", "requirements-other.lock")
    assert (code, err) == (0, "")
    python = out.splitlines()[-1]
    assert python.startswith(f"{copy.root}/.buttress/environments/requirements-other-")
    venv, install = copy.uv_calls()
    assert venv.startswith("venv --clear")
    assert "--require-hashes" in install
    assert copy.run("side-environment", "requirements-other.lock")[1].splitlines() == [python]
    assert copy.uv_calls() == []
    (copy.root / "requirements-other.lock").write_text("three==4\n")
    assert copy.run("side-environment", "requirements-other.lock")[1].splitlines()[-1] != python
    assert not (copy.root / ".venv").exists()


def test_changed_lock_renews_the_environment(copy: Copy) -> None:
    copy.run("status")
    copy.uv_calls()
    (copy.root / "requirements.lock").write_text("one==2\n")
    copy.run("status")
    (call,) = copy.uv_calls()
    assert call.startswith(f"pip sync {copy.root / 'requirements.lock'}")
    copy.run("status")
    assert copy.uv_calls() == []


def test_tests_add_the_developers_packages_and_up_keeps_them(copy: Copy) -> None:
    copy.run("up")
    copy.uv_calls()
    copy.run("test")
    (call,) = copy.uv_calls()
    assert "requirements-dev.lock" in call
    copy.run("up")
    assert copy.uv_calls() == []
    (copy.root / "requirements-dev.lock").write_text("one==1\ntwo==3\n")
    copy.run("up")
    (call,) = copy.uv_calls()
    assert "requirements-dev.lock" in call


def test_environment_that_somebody_else_made_keeps_what_is_in_it(copy: Copy) -> None:
    (copy.root / ".venv" / "bin").mkdir(parents=True)
    (copy.root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    copy.run("status")
    (call,) = copy.uv_calls()
    assert call.startswith("pip install ")


def test_environment_whose_python_is_gone_is_made_anew(copy: Copy) -> None:
    copy.run("status")
    copy.uv_calls()
    (copy.root / ".venv" / "bin" / "python").unlink()
    (copy.root / ".venv" / "bin" / "python").symlink_to("/nonexistent/python3")
    code, _, _ = copy.run("status")
    # The stand-in leaves the dangling link in place, so the command cannot run; that uv was asked is what counts.
    assert code != 0
    assert copy.uv_calls()[0].startswith("venv --clear")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_installation_is_begun_anew(copy: Copy, number: signal.Signals) -> None:
    process, _ = copy.start_and_wait_until_installing()
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in err
        assert "Traceback" not in err.split("buttress:")[1]
    copy.uv_calls()
    code, out, _ = copy.run("status")
    assert code == 0
    assert "ran status" in out
    venv, _ = copy.uv_calls()
    assert venv.startswith("venv --clear")


def test_two_at_once_install_once(copy: Copy) -> None:
    first, gate = copy.start_and_wait_until_installing()
    second = copy.start("status")
    assert second.stdout is not None
    assert "waiting for it" in second.stdout.readline()
    gate.write_text("go")
    assert "ran status" in first.communicate(timeout=60)[0]
    assert "ran status" in second.communicate(timeout=60)[0]
    assert len(copy.uv_calls()) == 2  # one venv, one installation


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("failed to copy: No space left on device (os error 28)", "there is no room left on the disk"),
        ("error sending request for url (x)\n client error (Connect)", "the package index cannot be reached"),
        ("Hash mismatch for `one==1`", "a package is not the one that was locked"),
        ("one==1 has no wheels with a matching Python ABI tag", "does not exist for this Python or machine"),
        ("failed to create directory: Permission denied (os error 13)", "may not be written by this account"),
        ("something never seen before", "the Python packages could not be installed. uv said:"),
    ],
)
def test_failed_installation_is_explained_in_a_sentence(copy: Copy, said: str, sentence: str) -> None:
    code, out, err = copy.run("status", environ=copy.environ(UV_SAYS=said))
    assert code == 1
    assert "failed" in out
    assert sentence in err
    assert said.splitlines()[0] in err
    assert "Traceback" not in err


def test_failed_installation_is_not_taken_for_a_whole_one(copy: Copy) -> None:
    copy.run("status", environ=copy.environ(UV_SAYS="no"))
    copy.uv_calls()
    assert copy.run("status")[0] == 0
    assert copy.uv_calls()[0].startswith("venv --clear")


def test_unknown_certificate_is_looked_up_among_the_machines_own(copy: Copy) -> None:
    copy.run("status", environ=copy.environ(UV_SAYS="invalid peer certificate: UnknownIssuer"))
    assert [call.split()[0] for call in copy.uv_calls()] == ["venv", "pip", "pip"]


def test_machine_without_uv_and_pip_is_told_what_to_install(copy: Copy, tmp_path: Path) -> None:
    (copy.programs / "uv").unlink()
    (tmp_path / "sitecustomize.py").write_text(NO_PIP)
    code, _, err = copy.run("status", environ=copy.environ(PYTHONPATH=str(tmp_path)))
    assert code == 1
    assert "neither uv nor any pip" in err
    assert "python3-venv" in err
    assert "Traceback" not in err


def test_old_python_is_refused_with_the_version_needed(copy: Copy) -> None:
    launcher = copy.root / "buttress"
    launcher.write_text(launcher.read_text().replace("OLDEST = (3, 11)", "OLDEST = (3, 99)"))
    code, _, err = copy.run("status")
    assert code == 1
    assert "Python 3.99 or newer is needed. This is Python 3." in err


def test_relative_state_folder_means_the_callers_folder(copy: Copy) -> None:
    _, out, _ = copy.run("status", environ=copy.environ(BUTTRESS_STATE="mine"))
    assert f"state {copy.root.parent / 'mine'}" in out


def test_without_a_command_it_says_what_there_is_and_installs_nothing(copy: Copy) -> None:
    code, out, _ = copy.run()
    assert code == 2
    assert "./buttress up" in out
    assert copy.run("--help")[0] == 0
    assert copy.uv_calls() == []


def test_what_is_installed_is_noted_with_the_hash_of_its_lock(copy: Copy) -> None:
    copy.run("status")
    mark = json.loads((copy.root / ".venv" / ".buttress.json").read_text())
    assert mark["lock"] == "requirements.lock"
    assert len(mark["hash"]) == 64
