"""Whether something answers over HTTP yet, and whether a port is free to be listened on."""

import http.client
import socket
import time

from stack.config import HOST
from stack.errors import PartFailed, StackError
from stack.processes import Child

_POLL_S = 0.03


def answers(port: int, path: str, *, timeout_s: float = 2.0) -> bool:
    """True where GET `path` is answered with 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_answers(child: Child, port: int, path: str, *, timeout_s: float) -> None:
    """The child answers. Raises: PartFailed where it ended first, or takes longer than that."""
    deadline = time.monotonic() + timeout_s
    while not answers(port, path):
        child.require_running()
        if time.monotonic() > deadline:
            raise PartFailed(f"{child.part.name} did not answer GET {path} with 200 within {timeout_s:.0f} s.")
        time.sleep(_POLL_S)


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
