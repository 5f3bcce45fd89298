"""The server as a process: it starts only where it may, says when it is ready, and leaves when told or left alone."""

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import httpx
import pytest

from stack import node, supabase
from tests.support.callers import PASSWORD
from tests.support.embedded_supabase import Cluster, create_database, running_server, server_environment
from tests.support.pools import PATIENCE_S
from tests.support.stack import free_ports

LEAVES_WITHIN_S = 30.0  # it keeps an idle connection for longer


@pytest.fixture
def environ(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """The environment of a server with an empty database."""
    return server_environment(cluster, asyncio.run(create_database(cluster)), tmp_path, port=free_ports(1)[0])


def run(environ: Mapping[str, str], command: str = "serve") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(node.node_path()), str(supabase.SERVER), command],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "bootstrap"])
def test_it_never_runs_in_production(environ: dict[str, str], command: str) -> None:
    done = run({**environ, "BUTTRESS_ENV": "production"}, command)
    assert done.returncode == 2
    assert "production" in done.stderr
    assert "at " not in done.stderr.split("\n", 1)[1]


def test_everything_that_is_missing_is_named_at_once(environ: dict[str, str]) -> None:
    broken = {
        **{name: value for name, value in environ.items() if name != "SUPABASE_DB_URL"},
        "SUPABASE_JWT_SECRET": "short",
        "SUPABASE_SECRET_KEY": "secret",
        "SUPABASE_PORT": "many",
    }
    done = run(broken)
    assert done.returncode == 2
    for name in ("SUPABASE_DB_URL", "SUPABASE_JWT_SECRET", "SUPABASE_SECRET_KEY", "SUPABASE_PORT"):
        assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_project_file_that_cannot_be_read_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[api\n")
    done = run({**environ, "SUPABASE_CONFIG": str(broken)})
    assert done.returncode == 2
    assert str(broken) in done.stderr


def test_a_database_that_is_not_there_ends_it_with_a_sentence(environ: dict[str, str]) -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_ports(1)[0]}/postgres"
    done = run({**environ, "SUPABASE_DB_URL": nowhere})
    assert done.returncode == 1
    assert done.stderr.startswith("the embedded Supabase cannot start")
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_ends_it_with_a_sentence(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run({**environ, "SUPABASE_PORT": str(taken.getsockname()[1])})
    assert done.returncode == 1
    assert "EADDRINUSE" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_says_when_it_is_ready_and_leaves_when_told(environ: dict[str, str], tmp_path: Path) -> None:
    with running_server(environ) as process:
        ready = json.loads((tmp_path / "server.log").read_text().splitlines()[0])
        assert ready == {"event": "ready", "url": environ["SUPABASE_PUBLIC_URL"]}
        with httpx.Client(base_url=ready["url"], timeout=PATIENCE_S) as idle:  # an idle connection does not hold it up
            idle.get("/health")
            process.send_signal(signal.SIGTERM)
            assert process.wait(LEAVES_WITHIN_S) == 0


def test_many_first_requests_at_once_are_all_answered(environ: dict[str, str]) -> None:
    """More of them than the server has connections: none may wait for one that another holds while it waits."""
    with running_server(environ):
        assert asyncio.run(_ask_at_once(environ)) == {"rest": {404}, "sign_up": {200}}


async def _ask_at_once(environ: dict[str, str]) -> dict[str, set[int]]:
    headers = {"apikey": environ["SUPABASE_PUBLISHABLE_KEY"]}
    async with httpx.AsyncClient(
        base_url=environ["SUPABASE_PUBLIC_URL"], headers=headers, timeout=PATIENCE_S
    ) as client:
        rest = [client.post("/rest/v1/rpc/anything") for _ in range(20)]
        reads = [client.get("/storage/v1/bucket") for _ in range(20)]
        sign_ups = [
            client.post("/auth/v1/signup", json={"email": f"{number}@example.com", "password": PASSWORD})
            for number in range(12)
        ]
        answers = await asyncio.gather(*rest, *reads, *sign_ups)
    assert {answer.status_code for answer in answers[20:40]} == {200}
    return {
        "rest": {answer.status_code for answer in answers[:20]},
        "sign_up": {answer.status_code for answer in answers[40:]},
    }


def test_it_leaves_when_its_parent_is_gone(environ: dict[str, str]) -> None:
    with running_server({**environ, "SUPABASE_EXIT_WITH_PARENT": "1"}) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LEAVES_WITHIN_S) == 0


def test_otherwise_it_outlives_its_standard_input(environ: dict[str, str]) -> None:
    with running_server(environ) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert httpx.get(f"{environ['SUPABASE_PUBLIC_URL']}/health", timeout=PATIENCE_S).status_code == 200
        assert process.poll() is None


def test_it_connects_to_nothing_but_its_database(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        guard = (supabase.SERVER.parent / "no_phoning_home.mjs").as_uri()
        script = f"""
            import {{ allowOnlyDatabase }} from {json.dumps(guard)};
            import net from "node:net";
            allowOnlyDatabase(process.env.SUPABASE_DB_URL);
            const tried = await Promise.allSettled([
              fetch("http://127.0.0.1:{port}/"),
              new Promise((done, failed) => net.connect({port}, "127.0.0.1").on("connect", done).on("error", failed)),
              new Promise((done, failed) => {{
                const {{ hostname, port }} = new URL(process.env.SUPABASE_DB_URL);
                net.connect(Number(port), hostname).on("connect", done).on("error", failed);
              }}),
            ]);
            console.log(JSON.stringify(tried.map((one) => one.status)));
            process.exit(0);
        """
        done = subprocess.run(
            [str(node.node_path()), "--input-type=module", "-e", script],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert json.loads(done.stdout) == ["rejected", "rejected", "fulfilled"], done.stderr


def test_no_telemetry_is_installed() -> None:
    modules = supabase.SERVER.parent / "node_modules"
    assert (modules / "@supabase" / "lite").is_dir()
    for name in ("@sentry/node", "@electric-sql/pglite", "@vercel/detect-agent", "@supabase/pg-delta"):
        manifest = json.loads((modules / name / "package.json").read_text())
        assert manifest["name"] == "tslib", f"{name} is really there"
    assert not (modules / "@opentelemetry").exists()


def test_the_lock_file_pins_hashes_and_names_no_address() -> None:
    lock = json.loads((supabase.SERVER.parent / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    assert "://" not in (supabase.SERVER.parent / "package-lock.json").read_text()
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name
    manifest = json.loads((supabase.SERVER.parent / "package.json").read_text())
    for name, version in manifest["dependencies"].items():
        assert version[0].isdigit(), f"{name} is not pinned exactly"


ROLES = ("anon", "authenticated", "service_role", "authenticator", "supabase_auth_admin", "supabase_storage_admin")


def test_bootstrap_may_be_run_again_and_at_once(environ: dict[str, str]) -> None:
    command = [str(node.node_path()), str(supabase.SERVER), "bootstrap"]
    several = [subprocess.Popen(command, env=environ) for _ in range(3)]
    assert [process.wait(60) for process in several] == [0, 0, 0]
    assert run(environ, "bootstrap").returncode == 0
    asyncio.run(_assert_bootstrapped(environ["SUPABASE_DB_URL"]))


async def _assert_bootstrapped(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        found = await connection.fetch("select rolname, rolbypassrls from pg_roles where rolname = any($1)", ROLES)
        bypasses = {row["rolname"]: row["rolbypassrls"] for row in found}
        assert bypasses == {role: role == "service_role" for role in ROLES}
        assert await connection.fetchval("select public from storage.buckets where id = 'papers'") is False
        open_tables = await connection.fetch(
            """
            select relname from pg_class where relnamespace in ('auth'::regnamespace, 'storage'::regnamespace)
                and relkind = 'r' and not relrowsecurity
            """
        )
        assert open_tables == []
    finally:
        await connection.close()


def test_a_request_that_breaks_something_shows_nothing_and_ends_nothing(environ: dict[str, str]) -> None:
    headers = {"apikey": environ["SUPABASE_PUBLISHABLE_KEY"]}
    with running_server(environ) as process, httpx.Client(headers=headers, timeout=PATIENCE_S) as client:
        url = environ["SUPABASE_PUBLIC_URL"]
        for path in ("/rest/v1/%E0%A4%A", "/rest/v1/%00", "/storage/v1/object/%E0%A4%A/x", "/auth/v1/%E0%A4%A", "/%"):
            answer = client.get(f"{url}{path}")
            assert answer.status_code >= 400, path
            for secret in ("node_modules", "    at ", ".mjs", environ["SUPABASE_JWT_SECRET"]):
                assert secret not in answer.text, path
        assert client.get(f"{url}/health").status_code == 200
        assert process.poll() is None


def test_every_module_is_small() -> None:
    modules = [path for path in supabase.SERVER.parent.rglob("*.mjs") if "node_modules" not in path.parts]
    assert len(modules) > 10
    for path in modules:
        assert len(path.read_text().splitlines()) <= 300, path
