"""The official client verifies codes with type "email", whatever the code was sent for."""

from uuid import uuid4

import httpx
import pytest
from supabase import AsyncClient

from tests.support.callers import Caller
from tests.support.embedded_supabase import EmbeddedSupabase


@pytest.fixture(autouse=True)
def only_with_a_mailbox(supabase: EmbeddedSupabase) -> None:
    if supabase.mailbox_file is None:
        pytest.skip("this Supabase sends real e-mails")


async def test_a_code_signs_a_known_person_in(supabase: EmbeddedSupabase, client: AsyncClient, person: Caller) -> None:
    await client.auth.sign_in_with_otp({"email": person.email})
    code = supabase.mails_to(person.email)[-1]["token"]
    answer = await client.auth.verify_otp({"email": person.email, "token": code, "type": "email"})
    assert answer.user is not None
    assert answer.user.email == person.email


async def test_a_code_signs_a_new_person_up(supabase: EmbeddedSupabase, client: AsyncClient) -> None:
    email = f"{uuid4().hex}@example.com"
    await client.auth.sign_in_with_otp({"email": email})
    code = supabase.mails_to(email)[-1]["token"]
    answer = await client.auth.verify_otp({"email": email, "token": code, "type": "email"})
    assert answer.session is not None


async def test_a_code_works_once_and_a_wrong_one_never(supabase: EmbeddedSupabase, person: Caller) -> None:
    async with supabase.client() as http:
        await http.post("/auth/v1/otp", json={"email": person.email})
        code = supabase.mails_to(person.email)[-1]["token"]
        wrong = "000000" if code != "000000" else "000001"
        responses: list[httpx.Response] = [
            await http.post("/auth/v1/verify", json={"email": person.email, "token": token, "type": "email"})
            for token in (wrong, code, code)
        ]
    assert [response.status_code for response in responses] == [403, 200, 403]
    assert responses[0].json()["error_code"] == "otp_expired"
