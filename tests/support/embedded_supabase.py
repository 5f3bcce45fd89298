"""An embedded Supabase of a test's own: a database in the stack's PostgreSQL, and a server process for it."""

import json
import os
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self
from uuid import uuid4

import asyncpg
import httpx

from stack import node, supabase
from tests.support.pools import PATIENCE_S, READY_WITHIN_S
from tests.support.stack import RunningStack, free_ports

CONFIG = """
[api]
schemas = ["api"]
extra_search_path = ["extensions"]
max_rows = 1000

[auth]
site_url = "http://127.0.0.1:3000"
additional_redirect_urls = ["http://127.0.0.1:3000/**"]
minimum_password_length = 10

[auth.email]
double_confirm_changes = true

[auth.email.template.recovery]
subject = "A new password for {{ .Email }}"
content_path = "./supabase/recovery.html"

[storage]
file_size_limit = "50MiB"

[storage.buckets.papers]
public = false
file_size_limit = "1MiB"
allowed_mime_types = ["text/plain", "image/png"]
"""


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL in which servers of a test's own get databases of their own, and the secrets those servers use."""

    database_url: str
    publishable_key: str
    secret_key: str
    jwt_secret: str

    VARIABLE: ClassVar[str] = "BUTTRESS_CONTRACT_CLUSTER"

    @classmethod
    def from_environment(cls) -> Self | None:
        """The one a pytest process above this one handed down, if there is one."""
        handed_down = os.environ.get(cls.VARIABLE)
        return cls(**json.loads(handed_down)) if handed_down else None

    @classmethod
    def of(cls, stack: RunningStack) -> Self:
        return cls(stack.database_url, stack.publishable_key, stack.secret_key, stack.jwt_secret)

    def hand_down(self) -> dict[str, str]:
        """For the environment of a pytest process below this one."""
        return {self.VARIABLE: json.dumps(asdict(self))}


@dataclass(frozen=True)
class EmbeddedSupabase:
    """A Supabase the contract tests run against: the embedded one, or any other that the environment names."""

    supabase_url: str
    publishable_key: str
    secret_key: str
    jwt_secret: str
    database_url: str
    mailbox_file: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def from_environment(cls) -> Self | None:
        """The one BUTTRESS_CONTRACT_{URL,PUBLISHABLE_KEY,SECRET_KEY,JWT_SECRET,DATABASE_URL} name, if all are set."""
        names = ("URL", "PUBLISHABLE_KEY", "SECRET_KEY", "JWT_SECRET", "DATABASE_URL")
        url, publishable, secret, jwt_secret, database = (os.environ.get(f"BUTTRESS_CONTRACT_{name}") for name in names)
        if not (url and publishable and secret and jwt_secret and database):
            return None
        return cls(url, publishable, secret, jwt_secret, database)

    def client(self, *, token: str | None = None, key: str | None = None) -> httpx.AsyncClient:
        """An HTTP client of this Supabase, as whoever the token is for. `async with` it."""
        headers = {"apikey": key or self.publishable_key}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(base_url=self.supabase_url, headers=headers, timeout=PATIENCE_S)

    def mails_to(self, address: str) -> list[dict[str, str]]:
        """What was sent to the address, oldest first."""
        if self.mailbox_file is None or not self.mailbox_file.exists():
            return []
        mails = [json.loads(line) for line in self.mailbox_file.read_text().splitlines()]
        return [mail for mail in mails if mail["to"] == address]


def server_environment(
    cluster: Cluster, database_url: str, folder: Path, *, port: int, **overrides: str
) -> dict[str, str]:
    """The environment of `node server.mjs serve` for that database, with its files in `folder`."""
    project = folder / "supabase"
    project.mkdir(parents=True, exist_ok=True)
    (project / "config.toml").write_text(CONFIG)
    (project / "recovery.html").write_text("<p>{{ .SiteURL }} {{ .Token }} {{ .ConfirmationURL }} {{ .Unknown }}</p>")
    return {
        **node.node_environ(),
        "BUTTRESS_ENV": "test",
        "SUPABASE_DB_URL": database_url,
        "SUPABASE_PORT": str(port),
        "SUPABASE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SUPABASE_JWT_SECRET": cluster.jwt_secret,
        "SUPABASE_PUBLISHABLE_KEY": cluster.publishable_key,
        "SUPABASE_SECRET_KEY": cluster.secret_key,
        "SUPABASE_STORAGE_DIR": str(folder / "storage"),
        "SUPABASE_MAILBOX_FILE": str(folder / "mailbox.jsonl"),
        "SUPABASE_CONFIG": str(project / "config.toml"),
        "SUPABASE_AUTOCONFIRM": "1",
        **overrides,
    }


@contextmanager
def running_server(environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The server answers inside the block, and is gone after it."""
    log = Path(environ["SUPABASE_MAILBOX_FILE"]).with_name("server.log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(node.node_path()), str(supabase.SERVER), "serve"],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_healthy(process, environ["SUPABASE_PUBLIC_URL"], log)
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        try:
            if httpx.get(f"{url}/health", timeout=PATIENCE_S).status_code == 200:
                return
        except httpx.TransportError:
            pass  # nobody listens there yet
        time.sleep(0.03)
    raise AssertionError(f"the server did not answer in time:\n{log.read_text()}")


@contextmanager
def embedded_supabase(
    cluster: Cluster, database_url: str, folder: Path, **overrides: str
) -> Iterator[EmbeddedSupabase]:
    """A server for that database, alive inside the block."""
    port = free_ports(1)[0]
    environ = server_environment(cluster, database_url, folder, port=port, **overrides)
    with running_server(environ) as process:
        yield EmbeddedSupabase(
            supabase_url=environ["SUPABASE_PUBLIC_URL"],
            publishable_key=cluster.publishable_key,
            secret_key=cluster.secret_key,
            jwt_secret=cluster.jwt_secret,
            database_url=environ["SUPABASE_DB_URL"],
            mailbox_file=Path(environ["SUPABASE_MAILBOX_FILE"]),
            process=process,
        )
    shutil.rmtree(folder, ignore_errors=True)


async def create_database(cluster: Cluster) -> str:
    """The URL of a new, empty database in that PostgreSQL; it is gone with it."""
    name = f"contract_{uuid4().hex}"
    connection = await asyncpg.connect(cluster.database_url)
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()
    return urllib.parse.urlsplit(cluster.database_url)._replace(path=f"/{name}").geturl()
