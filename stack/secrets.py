"""The secrets of one embedded stack, made at random the first time and kept in its state folder.

Each carries the mark `embedded_`, so that a service started with BUTTRESS_ENV=production can refuse it on sight
(docs/decisions/0020).
"""

import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from stack.errors import StackError

EMBEDDED_MARK = "embedded_"


@dataclass(frozen=True)
class Secrets:
    jwt_secret: str
    publishable_key: str
    secret_key: str
    postgres_password: str
    gateway_service_password: str

    @property
    def key_pepper(self) -> str:
        """What API keys are hashed with. It follows from another secret, so that no state folder lacks it."""
        return EMBEDDED_MARK + hmac.digest(self.jwt_secret.encode(), b"key pepper", "sha256").hex()

    def __repr__(self) -> str:
        return "Secrets(…)"


def load_or_make_secrets(state_dir: Path) -> Secrets:
    """The folder holds one set of secrets, readable by its owner alone, and this is it."""
    path = state_dir / "secrets.json"
    if not path.exists():
        _write_new(path, _random_secrets())
    try:
        return Secrets(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise StackError(
            f"{path} is damaged. Restore it, or run `./buttress reset` to begin again with empty data."
        ) from error


def _random_secrets() -> Secrets:
    return Secrets(
        jwt_secret=EMBEDDED_MARK + secrets.token_hex(32),
        publishable_key=f"sb_publishable_{EMBEDDED_MARK}{secrets.token_hex(16)}",
        secret_key=f"sb_secret_{EMBEDDED_MARK}{secrets.token_hex(16)}",
        postgres_password=EMBEDDED_MARK + secrets.token_hex(24),
        gateway_service_password=EMBEDDED_MARK + secrets.token_hex(24),
    )


def _write_new(path: Path, values: Secrets) -> None:
    """Linked into place whole, so that of two that start at once both read the first one's file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(values), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
