"""A proxy's word about who calls counts, and nobody else's."""

from ipaddress import ip_network

import pytest

from api.http.client_address import nearest_untrusted
from core.settings import load_settings
from tests.unit.test_core_settings import REQUIRED, problems_of

OURS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not our proxy: its word is a stranger's
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # what the client sent stands at the left
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("unknown", ["198.51.100.1"], "unknown"),
    ],
)
def test_the_nearest_address_that_is_no_proxy_of_ours_is_the_clients(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert nearest_untrusted(peer, forwarded_for, OURS) == client


def test_nobody_is_trusted_unless_named() -> None:
    trusted = load_settings(REQUIRED).trusted_proxies
    assert nearest_untrusted("127.0.0.1", ["198.51.100.1"], trusted) == "127.0.0.1"


def test_trusted_proxies_are_addresses_or_networks() -> None:
    settings = load_settings({**REQUIRED, "BUTTRESS_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1"})
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"))
    (problem, *_) = problems_of({**REQUIRED, "BUTTRESS_TRUSTED_PROXIES": "everybody"})
    assert problem.startswith("BUTTRESS_TRUSTED_PROXIES")
