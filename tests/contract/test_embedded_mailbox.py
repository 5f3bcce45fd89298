"""E-mails land in the mailbox file, and their links lead to Auth, which leads back to the web app."""

import urllib.parse

import anyio
import httpx
import pytest

from tests.support.callers import Caller, sign_up
from tests.support.embedded_supabase import EmbeddedSupabase
from tests.support.pools import PATIENCE_S


@pytest.fixture(autouse=True)
def only_with_a_mailbox(supabase: EmbeddedSupabase) -> None:
    if supabase.mailbox_file is None:
        pytest.skip("this Supabase sends real e-mails")


@pytest.fixture
async def forgetful(supabase: EmbeddedSupabase) -> Caller:
    return await sign_up(supabase)


async def test_a_recovery_mail_is_rendered_from_its_template(
    supabase: EmbeddedSupabase, anonymous: httpx.AsyncClient, forgetful: Caller
) -> None:
    assert (await anonymous.post("/auth/v1/recover", json={"email": forgetful.email})).status_code == 200
    [mail] = supabase.mails_to(forgetful.email)
    assert mail["subject"] == f"A new password for {forgetful.email}"
    assert mail["type"] == "recovery"
    assert mail["html"].startswith(f"<p>http://127.0.0.1:3000 {mail['token']} http")
    assert "{{ .Unknown }}" in mail["html"]
    assert len(mail["token"]) == 6
    assert mail["token"] in mail["text"]


async def test_the_mailed_link_signs_in_and_leads_to_the_web_app(
    supabase: EmbeddedSupabase, anonymous: httpx.AsyncClient, forgetful: Caller
) -> None:
    await anonymous.post(
        "/auth/v1/recover",
        params={"redirect_to": "http://127.0.0.1:3000/new-password"},
        json={"email": forgetful.email},
    )
    link = supabase.mails_to(forgetful.email)[-1]["link"]
    assert link.startswith(f"{supabase.supabase_url}/auth/v1/verify?")
    async with httpx.AsyncClient(timeout=PATIENCE_S) as browser:
        response = await browser.get(link)
    assert response.status_code == 303
    target = urllib.parse.urlsplit(response.headers["location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == "http://127.0.0.1:3000/new-password"
    token = urllib.parse.parse_qs(target.fragment)["access_token"][0]
    async with supabase.client(token=token) as client:
        assert (await client.get("/auth/v1/user")).json()["email"] == forgetful.email


async def test_a_link_never_leads_to_a_site_that_is_not_allowed(
    supabase: EmbeddedSupabase, anonymous: httpx.AsyncClient, forgetful: Caller
) -> None:
    await anonymous.post(
        "/auth/v1/recover", params={"redirect_to": "http://evil.example/"}, json={"email": forgetful.email}
    )
    async with httpx.AsyncClient(timeout=PATIENCE_S) as browser:
        response = await browser.get(supabase.mails_to(forgetful.email)[-1]["link"])
    assert response.headers["location"].startswith("http://127.0.0.1:3000")


async def test_the_mailbox_is_closed_to_other_accounts(
    supabase: EmbeddedSupabase, anonymous: httpx.AsyncClient, forgetful: Caller
) -> None:
    await anonymous.post("/auth/v1/recover", json={"email": forgetful.email})
    assert supabase.mailbox_file is not None
    assert (await anyio.Path(supabase.mailbox_file).stat()).st_mode & 0o077 == 0
