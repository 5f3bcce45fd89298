"""Where a stack keeps its state and which ports it listens on, read once from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DEFAULT_STATE_DIR = ROOT / ".buttress"
TOOLS_DIR = DEFAULT_STATE_DIR / "tools"  # what the launcher and npm need, shared by every state folder

_DEFAULT_PORTS = {
    "BUTTRESS_PORT": 8000,
    "BUTTRESS_SUPABASE_PORT": 54321,
    "BUTTRESS_DB_PORT": 54322,
    "BUTTRESS_LLM_PORT": 54330,
}


@dataclass(frozen=True)
class StackConfig:
    """One copy of the stack; two with different folders and ports run side by side."""

    state_dir: Path
    api_port: int
    supabase_port: int
    db_port: int
    llm_port: int
    llm_enabled: bool = True
    external_supabase_url: str | None = None  # the caller's own Supabase, of which the stack starts nothing
    external_publishable_key: str | None = None

    @property
    def external_supabase(self) -> bool:
        return self.external_supabase_url is not None

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def run_file(self) -> Path:
        return self.state_dir / "run.json"

    @property
    def lock_file(self) -> Path:
        return self.state_dir / "lock"

    @property
    def postgres_dir(self) -> Path:
        return self.state_dir / "postgres"

    @property
    def storage_dir(self) -> Path:
        return self.state_dir / "storage"

    @property
    def mailbox_file(self) -> Path:
        return self.state_dir / "mailbox.jsonl"

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.api_port}"

    @property
    def gateway_url(self) -> str:
        return f"{self.api_url}/llm/v1"

    @property
    def supabase_url(self) -> str:
        return self.external_supabase_url or f"http://{HOST}:{self.supabase_port}"

    @property
    def llm_url(self) -> str:
        return f"http://{HOST}:{self.llm_port}/v1"


def load_config(environ: Mapping[str, str] | None = None) -> StackConfig:
    """The stack this environment describes.

    Raises: StackError naming the variable that is not a usable port, or two that share one.
    """
    source = os.environ if environ is None else environ
    ports = {variable: _port(source, variable) for variable in _DEFAULT_PORTS}
    for variable, port in ports.items():
        twins = [other for other, value in ports.items() if value == port]
        if len(twins) > 1:
            raise StackError(f"{' and '.join(twins)} are both {port}; give {variable} a port of its own.")
    return StackConfig(
        state_dir=Path(source.get("BUTTRESS_STATE") or DEFAULT_STATE_DIR).expanduser().absolute(),
        api_port=ports["BUTTRESS_PORT"],
        supabase_port=ports["BUTTRESS_SUPABASE_PORT"],
        db_port=ports["BUTTRESS_DB_PORT"],
        llm_port=ports["BUTTRESS_LLM_PORT"],
        llm_enabled=source.get("BUTTRESS_LLM", "").strip().lower() != "off",
        external_supabase_url=source.get("BUTTRESS_SUPABASE_URL") or None,
        external_publishable_key=source.get("BUTTRESS_SUPABASE_PUBLISHABLE_KEY") or None,
    )


def _port(source: Mapping[str, str], variable: str) -> int:
    text = source.get(variable) or str(_DEFAULT_PORTS[variable])
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise StackError(f"{variable} is {text!r}, which is no port; use a number from 1 to 65535.")
    return int(text)
