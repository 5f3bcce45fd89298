"""Whether something answers over HTTP yet, and whether a port is free to be listened on."""

import http.client
import socket
import time

from stack.config import HOST
from stack.errors import PartFailed, StackError
from stack.processes import Child, log_tail

_POLL_S = 0.03
_TIMEOUT_S = 2.0
_STARTING_TIMEOUT_S = 10.0  # the first answer may need connections that a busy machine takes long to make


def answers(port: int, path: str) -> bool:
    """True where GET `path` is answered with 200."""
    return _refusal(port, path, _TIMEOUT_S) is None


def wait_until_answers(child: Child, port: int, path: str, *, timeout_s: float) -> None:
    """The child answers. Raises: PartFailed where it ended first, or takes longer; says what it answered last."""
    deadline = time.monotonic() + timeout_s
    while (refusal := _refusal(port, path, _STARTING_TIMEOUT_S)) is not None:
        child.require_running()
        if time.monotonic() > deadline:
            raise PartFailed(
                f"{child.part.name} was not ready within {timeout_s:.0f} s: GET {path} is answered with {refusal}."
                f"{log_tail(child.part.log_file)}"
            )
        time.sleep(_POLL_S)


def _refusal(port: int, path: str, timeout_s: float) -> str | None:
    """None where the answer is 200; else what was answered instead."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status == 200:
            return None
        return f"{response.status} {response.read(500).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def require_free_port(port: int, variable: str, purpose: str) -> None:
    """Raises: StackError naming the port, what it is for, and the variable that changes it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError as error:
            raise StackError(
                f"Port {port} ({purpose}) may not be used by this account. Set {variable} to another port."
            ) from error
        except OSError as error:
            raise StackError(
                f"Port {port} ({purpose}) is taken by another program. Stop it, or set {variable} to a free port."
            ) from error
