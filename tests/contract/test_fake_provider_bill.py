"""The fake provider's script, gate and bill: what accounting tests stand on."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.support.fake_provider import FakeProvider, Match, NotReached, Step

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def provider(fake_provider: FakeProvider) -> FakeProvider:
    fake_provider.reset()
    return fake_provider


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def ask(http: aiohttp.ClientSession, provider: FakeProvider, **fields: object) -> int:
    """The status of a chat completion with these fields."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    headers = {"authorization": "Bearer sk-1", "x-team": "red" if fields.get("user") == "ann" else "blue"}
    async with http.post(f"{provider.url}/v1/chat/completions", data=orjson.dumps(body), headers=headers) as response:
        await response.read()
        return response.status


async def test_steps_are_played_in_order_then_the_ordinary_answer_again(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    provider.script(Step(status=500, times=2), Step(status=429))
    assert [await ask(http, provider) for _ in range(4)] == [500, 500, 429, 200]


async def test_a_step_waits_for_the_request_that_matches_it(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    provider.script(
        Step(status=401, match=Match(model="other")),
        Step(status=403, match=Match(user="bob")),
        Step(status=503, match=Match(headers={"x-team": "red"}), times=0),
    )
    assert await ask(http, provider) == 200
    assert await ask(http, provider, user="ann") == 503
    assert await ask(http, provider, user="bob") == 403
    assert await ask(http, provider, model="other") == 401
    assert await ask(http, provider, user="ann") == 503


@pytest.mark.parametrize(
    ("step", "complaint"),
    [({"delay_befor": 1}, "delay_befor"), ({"connection": "rest"}, "connection"), ({"status": "many"}, "status")],
)
async def test_a_script_that_makes_no_sense_is_refused(
    http: aiohttp.ClientSession, provider: FakeProvider, step: dict[str, object], complaint: str
) -> None:
    async with http.post(f"{provider.url}/_script", data=orjson.dumps({"steps": [step]})) as response:
        assert response.status == 400
        assert complaint in (await response.json())["error"]


async def test_what_arrived_is_kept_as_it_came(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    await ask(http, provider, user="ann")
    seen = provider.requests()[0]
    assert seen.authorization == "Bearer sk-1"
    assert orjson.loads(seen.body)["user"] == "ann"
    assert seen.headers["x-team"] == "red"


async def test_a_held_request_goes_on_when_released(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    provider.script(Step(hold_before_headers=True, times=3))
    asking = [asyncio.create_task(ask(http, provider)) for _ in range(3)]
    await provider.wait_for(held=3)
    assert provider.release(1) == 1
    assert (await provider.wait_for(closed=1)).held == 2
    assert provider.release() == 2
    assert await asyncio.gather(*asking) == [200, 200, 200]


async def test_a_client_that_leaves_is_billed_for_exactly_what_was_produced(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    provider.script(Step(output_tokens=100, hold_after_chunks=7))
    body = orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    async with http.post(f"{provider.url}/v1/chat/completions", data=body) as response:
        await provider.wait_for(held=1, chunks=7)
        response.close()
    await provider.wait_for(client_gone=1)
    line = provider.bill().lines[0]
    assert (line.outcome, line.input_tokens, line.output_tokens, line.chunks) == ("client_gone", 4, 7, 7)
    assert not line.usage_reported


async def test_an_endless_stream_ends_with_its_client(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    provider.script(Step(endless=True))
    body = orjson.dumps(
        {"model": "m", "stream": True, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
    )
    async with http.post(f"{provider.url}/v1/chat/completions", data=body) as response:
        await provider.wait_for(chunks=50)
        response.close()
    await provider.wait_for(client_gone=1)
    bill = provider.bill()
    assert bill.lines[0].output_tokens == bill.output_tokens == bill.counts.chunks >= 50


async def test_an_endless_stream_waits_for_a_client_that_does_not_read(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    provider.script(Step(endless=True, padding_bytes=1 << 20))
    body = orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    async with http.post(f"{provider.url}/v1/chat/completions", data=body) as response:
        with pytest.raises(NotReached):
            await provider.wait_for(chunks=200, timeout_s=0.5)
        response.close()
    await provider.wait_for(client_gone=1)


async def test_a_request_without_an_answer_is_left_by_its_client_and_billed_for_the_prompt(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    asking = asyncio.create_task(ask(http, provider, model="fake/hang"))
    await provider.wait_for(requests=1)
    asking.cancel()
    await provider.wait_for(client_gone=1)
    line = provider.bill().lines[0]
    assert (line.outcome, line.input_tokens, line.output_tokens) == ("client_gone", 4, 0)


async def test_waiting_for_what_does_not_happen_says_what_was_seen(provider: FakeProvider) -> None:
    with pytest.raises(NotReached, match='"requests":0'):
        await provider.wait_for(requests=1, timeout_s=0.01)


async def test_a_request_open_during_a_reset_counts_nowhere(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    provider.script(Step(hold_before_headers=True))
    asking = asyncio.create_task(ask(http, provider))
    await provider.wait_for(held=1)
    provider.reset()
    assert await asking == 200
    bill = provider.bill()
    assert (bill.counts.requests, bill.counts.closed, bill.output_tokens, bill.lines) == (0, 0, 0, ())


async def test_the_bill_adds_up_over_concurrent_requests(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    await asyncio.gather(*(ask(http, provider, model=f"fake/tokens-{n}", stream=n % 2 == 0) for n in range(1, 41)))
    await provider.wait_for(closed=40)
    bill = provider.bill()
    assert bill.output_tokens == sum(range(1, 41)) == sum(line.output_tokens for line in bill.lines)
    assert bill.input_tokens == 40 * 4


def test_the_provider_ends_when_whoever_started_it_is_killed() -> None:
    code = "import time; from tests.support.fake_provider import FakeProvider as F; F.start(); print(1); time.sleep(60)"
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"1\n"
        starter.send_signal(signal.SIGKILL)
        # The provider has inherited standard error: reading it comes to an end when both have ended.
        starter.communicate(timeout=20)


def test_by_hand_it_prints_where_it_is_and_what_it_can_do() -> None:
    command = [sys.executable, "-m", "tests.support.fake_provider", "--port", "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as provider:
        assert provider.stdout is not None
        first = provider.stdout.readline().decode()
        provider.terminate()
        rest = provider.stdout.read().decode()
    assert provider.returncode == 0
    assert "http://127.0.0.1:" in first
    assert "fake/error-N" in rest
