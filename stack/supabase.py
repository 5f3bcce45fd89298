"""The embedded Supabase: `@supabase/lite` under Node, serving PostgREST, Auth and Storage on our PostgreSQL."""

import os

from stack.config import HOST, ROOT, StackConfig
from stack.errors import StackError
from stack.node import EMBEDDED_DIR, node_environ, node_path
from stack.postgres import superuser_url
from stack.processes import Part
from stack.secrets import Secrets

SERVER = EMBEDDED_DIR / "server.mjs"


def refuse_in_production() -> None:
    """Raises: StackError where BUTTRESS_ENV says production: the embedded Supabase is a development server."""
    if os.environ.get("BUTTRESS_ENV") == "production":
        raise StackError(
            "The embedded stack is for development and tests, and BUTTRESS_ENV is production. "
            "Set BUTTRESS_SUPABASE_URL and its keys to use a Supabase project, or unset BUTTRESS_ENV."
        )


def part(config: StackConfig, secrets: Secrets) -> Part:
    refuse_in_production()
    return Part(
        name="supabase",
        command=[str(node_path()), str(SERVER), "serve"],
        environ={
            **node_environ(),
            "SUPABASE_DB_URL": superuser_url(config, secrets),
            "SUPABASE_HOST": HOST,
            "SUPABASE_PORT": str(config.supabase_port),
            "SUPABASE_PUBLIC_URL": config.supabase_url,
            "SUPABASE_JWT_SECRET": secrets.jwt_secret,
            "SUPABASE_PUBLISHABLE_KEY": secrets.publishable_key,
            "SUPABASE_SECRET_KEY": secrets.secret_key,
            "SUPABASE_STORAGE_DIR": str(config.storage_dir),
            "SUPABASE_MAILBOX_FILE": str(config.mailbox_file),
            "SUPABASE_CONFIG": str(ROOT / "supabase" / "config.toml"),
            "SUPABASE_AUTOCONFIRM": "1",
        },
        log_file=config.logs_dir / "supabase.log",
    )
