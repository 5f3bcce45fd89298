"""The account PostgreSQL runs under where the stack is started by root, since PostgreSQL refuses to be root."""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

ACCOUNT = "buttress"


@dataclass(frozen=True)
class SystemUser:
    uid: int
    gid: int


def postgres_user() -> SystemUser | None:
    """None where the caller's own account will do; a dedicated account without a login where the caller is root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return _look_up()
    if (useradd := shutil.which("useradd")) is not None:
        command = [useradd, "--system", "--no-create-home", "--shell", "/bin/false", ACCOUNT]
    elif (adduser := shutil.which("adduser")) is not None:
        command = [adduser, "-S", "-D", "-H", "-s", "/bin/false", ACCOUNT]
    else:
        raise StackError(
            f"PostgreSQL will not run as root, and this machine has no useradd. Create a system user named {ACCOUNT}, "
            "or run the command as an ordinary user."
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return _look_up()  # another copy of the stack may have made it meanwhile, so the exit code decides nothing
    except KeyError as error:
        raise StackError(
            f"PostgreSQL will not run as root, and the system user {ACCOUNT} could not be made: "
            f"{done.stderr.strip() or done.stdout.strip()}. Run the command as an ordinary user."
        ) from error


def _look_up() -> SystemUser:
    entry = pwd.getpwnam(ACCOUNT)
    return SystemUser(entry.pw_uid, entry.pw_gid)


def let_pass(path: Path) -> list[Path]:
    """Every folder above `path` may be crossed (not listed) by any account; returns those that had to change."""
    changed = []
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            changed.append(folder)
    return changed


def let_read(folder: Path) -> None:
    """Any account may read the folder's files and run its programs; for installed programs, never for data."""
    for parent, _, files in os.walk(folder):
        _widen(Path(parent), stat.S_IROTH | stat.S_IXOTH)
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                executable = path.stat().st_mode & stat.S_IXUSR
                _widen(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _widen(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)
