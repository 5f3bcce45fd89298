"""The real stack for tests: PostgreSQL, the embedded Supabase and every migration, on free ports of its own."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack import postgres
from stack.config import HOST, StackConfig
from stack.embedded import bring_up_database, make_state_dir
from stack.environment import service_environment
from stack.family import Family
from stack.postgres import gateway_url, superuser_url
from stack.processes import Child, Part
from stack.progress import Progress
from stack.secrets import Secrets, load_or_make_secrets
from tests.support.pools import DEADLINE_VARIABLE, PATIENCE_S


@dataclass(frozen=True)
class RunningStack:
    """A stack that is up; everything a test may need to know of it."""

    config: StackConfig
    secrets: Secrets
    family: Family

    @property
    def supabase_url(self) -> str:
        return self.config.supabase_url

    @property
    def publishable_key(self) -> str:
        return self.secrets.publishable_key

    @property
    def secret_key(self) -> str:
        return self.secrets.secret_key

    @property
    def jwt_secret(self) -> str:
        return self.secrets.jwt_secret

    @property
    def database_url(self) -> str:
        """As the superuser."""
        return superuser_url(self.config, self.secrets)

    @property
    def gateway_database_url(self) -> str:
        """As gateway_service."""
        return gateway_url(self.config, self.secrets)

    @property
    def mailbox_file(self) -> Path:
        return self.config.mailbox_file

    @property
    def state_dir(self) -> Path:
        return self.config.state_dir

    def environment(self, *, database_deadline_s: float = PATIENCE_S) -> dict[str, str]:
        """The BUTTRESS_* variables of a service that uses this stack.

        AS_IN_SERVICE_S where a database that does not answer, or speed, is what it is about.
        """
        service = service_environment(self.config, self.secrets)
        return {**service, "BUTTRESS_ENV": "test", DEADLINE_VARIABLE: str(database_deadline_s)}

    def start(self, part: Part) -> Child:
        """One process more, which ends with the stack at the latest."""
        return self.family.start(part)


@contextmanager
def running_stack(*, durable: bool = True) -> Iterator[RunningStack]:
    """A fresh stack that is up inside the block, and of which nothing is left after it.

    Without `durable` PostgreSQL waits for no disk: what the machine's own crash would lose is nothing to a test.
    """
    with temporary_state_dir() as folder:
        config = free_config(folder)
        make_state_dir(config)
        secrets = load_or_make_secrets(folder)
        if not durable:
            postgres.prepare(config, secrets)
            with (config.postgres_dir / "postgresql.conf").open("a") as settings:
                settings.write("fsync = off\nfull_page_writes = off\n")
        with Family(config) as family:
            bring_up_database(config, secrets, family, Progress(None))
            yield RunningStack(config, secrets, family)


@contextmanager
def temporary_state_dir() -> Iterator[Path]:
    """A folder for a stack's state. Not pytest's tmp_path: pytest closes that to the account root's PostgreSQL has."""
    folder = Path(tempfile.mkdtemp(prefix="buttress-test-"))
    try:
        yield folder
    finally:
        if os.environ.get("BUTTRESS_KEEP_TEST_STATE") is None:
            shutil.rmtree(folder, ignore_errors=True)


def free_config(state_dir: Path) -> StackConfig:
    """A configuration whose ports are nobody else's; without the local model."""
    api, supabase, database, llm = free_ports(4)
    return StackConfig(
        state_dir=state_dir,
        api_port=api,
        supabase_port=supabase,
        db_port=database,
        llm_port=llm,
        llm_enabled=False,
    )


def free_ports(count: int) -> list[int]:
    """That many different ports on which nobody listens, and which nobody is given before this process ends."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    if sys.platform == "linux":
        # Who names such a port may listen on it, setting SO_REUSEADDR as servers do; who asks for any gets another.
        _reserved.extend(probes)
    else:
        for probe in probes:
            probe.close()
    return ports


_reserved: list[socket.socket] = []
