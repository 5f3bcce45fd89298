"""What a test is given to listen on later is still free by then, and only for whoever names it."""

import socket
import sys

import pytest

from tests.support.stack import free_ports


def test_a_port_that_was_given_is_refused_until_somebody_listens_there() -> None:
    [port] = free_ports(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody could listen on a port that is held")
def test_nobody_is_given_a_port_that_another_has() -> None:
    ports = free_ports(50)
    assert len({*ports, *free_ports(50)}) == 100
    for port in ports:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
