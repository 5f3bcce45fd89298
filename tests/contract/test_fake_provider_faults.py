"""Every fault is really on the wire: seen by a plain HTTP client, byte by byte."""

from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from tests.support.fake_provider import FakeProvider, Step


@pytest.fixture
def provider(fake_provider: FakeProvider) -> FakeProvider:
    fake_provider.reset()
    return fake_provider


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


def request_body(model: str, *, stream: bool = False) -> bytes:
    return orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})


async def ask(http: aiohttp.ClientSession, provider: FakeProvider, model: str, *, stream: bool = False) -> bytes:
    url = f"{provider.url}/v1/chat/completions"
    async with http.post(url, data=request_body(model, stream=stream), allow_redirects=False) as response:
        return await response.read()


def said(raw: bytes) -> str:
    """The text of all content deltas of a stream."""
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n") if line.startswith(b"data: {")]
    return "".join(orjson.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)


@pytest.mark.parametrize("model", ["fake/reset", "fake/close"])
async def test_a_connection_broken_off_before_the_answer_costs_nothing(
    http: aiohttp.ClientSession, provider: FakeProvider, model: str
) -> None:
    error = aiohttp.ClientOSError if model == "fake/reset" else aiohttp.ServerDisconnectedError
    with pytest.raises(error):
        await ask(http, provider, model)
    assert [(line.outcome, line.input_tokens) for line in provider.bill().lines] == [("no_answer", 0)]


async def test_connections_are_refused_on_the_refused_url_and_behind_a_closed_door(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    await ask(http, provider, "fake-model")
    provider.close_door()
    for url in (provider.refused_url, provider.url):
        with pytest.raises(aiohttp.ClientConnectorError, match="Connect call failed"):
            await http.post(f"{url}/v1/chat/completions", data=request_body("m"))
    provider.open_door()
    assert await ask(http, provider, "fake-model")
    assert provider.bill().counts.closed == 2


@pytest.mark.parametrize(("model", "outcome"), [("fake/cut-3", "cut"), ("fake/reset-3", "cut")])
async def test_a_stream_is_cut_after_the_chunks_that_arrived(
    http: aiohttp.ClientSession, provider: FakeProvider, model: str, outcome: str
) -> None:
    received = b""
    with pytest.raises(aiohttp.ClientError):  # noqa: PT012 - the answer has to be read until it breaks
        async with http.post(f"{provider.url}/v1/chat/completions", data=request_body(model, stream=True)) as response:
            async for data in response.content.iter_any():
                received += data
    assert said(received) == "word0 word1 word2"
    line = provider.bill().lines[0]
    assert (line.outcome, line.chunks, line.input_tokens, line.output_tokens) == (outcome, 3, 4, 3)


async def test_a_stream_can_end_without_its_end(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    raw = await ask(http, provider, "fake/end-2", stream=True)
    assert said(raw) == "word0 word1"
    assert b"[DONE]" not in raw
    assert b'"finish_reason":"stop"' not in raw


@pytest.mark.parametrize(
    "model", ["fake/malformed-json", "fake/half-json", "fake/wrong-content-type", "fake/empty-body"]
)
async def test_a_broken_body_is_no_json_and_is_billed_in_full(
    http: aiohttp.ClientSession, provider: FakeProvider, model: str
) -> None:
    raw = await ask(http, provider, model)
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(raw)
    line = provider.bill().lines[0]
    assert (line.outcome, line.output_tokens, line.usage_reported) == ("answered", 10, False)


async def test_json_can_be_cut_within_the_promised_length(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(http, provider, "fake/cut-json")
    assert provider.bill().lines[0].outcome == "cut"


@pytest.mark.parametrize("split_bytes", [1, 2, 3, 7])
async def test_a_stream_split_within_characters_is_whole_when_joined(
    http: aiohttp.ClientSession, provider: FakeProvider, split_bytes: int
) -> None:
    url = f"{provider.url}/v1/chat/completions"
    async with http.post(url, data=request_body(f"fake/split-{split_bytes}", stream=True)) as response:
        sizes, received = set(), b""
        async for data, ends in response.content.iter_chunks():
            received += data
            if ends:
                sizes.add(len(data))
    assert max(sizes) <= split_bytes
    assert said(received) == "Grüße, 世界! Ein Gruß aus Zürich 🙂 mit Ümläuten und 漢字."


async def test_usage_can_be_missing_null_or_in_every_chunk(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    assert "usage" not in orjson.loads(await ask(http, provider, "fake/no-usage"))
    assert orjson.loads(await ask(http, provider, "fake/null-usage"))["usage"] is None
    raw = await ask(http, provider, "fake/usage-every-chunk", stream=True)
    counted = [orjson.loads(line[6:])["usage"]["completion_tokens"] for line in raw.split(b"\n\n") if b"{" in line]
    assert counted == [0, *range(1, 11), 10]
    assert [line.usage_reported for line in provider.bill().lines] == [False, False, True]


async def test_choices_can_be_empty(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    assert orjson.loads(await ask(http, provider, "fake/empty-choices"))["choices"] == []


async def test_comments_and_the_number_of_ends_are_as_asked(
    http: aiohttp.ClientSession, provider: FakeProvider
) -> None:
    assert (await ask(http, provider, "fake/comments", stream=True)).count(b": keep-alive\n\n") == 11
    assert (await ask(http, provider, "fake/double-done", stream=True)).count(b"data: [DONE]\n\n") == 2
    assert (await ask(http, provider, "fake/no-done", stream=True)).count(b"[DONE]") == 0


async def test_a_huge_chunk_has_a_mebibyte(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    raw = await ask(http, provider, "fake/huge-chunks", stream=True)
    assert len(raw) > 10 * 2**20
    assert said(raw) == "This answer comes from the fake provider, word for word."


async def test_the_error_can_show_the_key_that_was_sent(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    url = f"{provider.url}/v1/chat/completions"
    async with http.post(
        url, data=request_body("fake/echo-authorization"), headers={"authorization": "Bearer sk-secret"}
    ) as response:
        assert response.status == 401
        assert b"Bearer sk-secret" in await response.read()


async def test_a_redirect_leads_into_a_trap_that_counts(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    await ask(http, provider, "fake/redirect")
    assert provider.bill().counts.trapped == 0
    async with http.post(f"{provider.url}/v1/chat/completions", data=request_body("fake/redirect")) as followed:
        assert followed.status == 200
    assert provider.bill().counts.trapped == 1


@pytest.mark.parametrize(
    "step",
    [
        Step(delay_before_headers_s=0.05),
        Step(slow_headers_s=0.05),
        Step(delay_before_first_chunk_s=0.05),
        Step(output_tokens=6, delay_between_chunks_s=0.01),
    ],
)
async def test_a_delay_lasts_at_least_as_long_as_asked(
    http: aiohttp.ClientSession, provider: FakeProvider, step: Step
) -> None:
    provider.script(step)
    assert (await ask(http, provider, "m", stream=True)).endswith(b"data: [DONE]\n\n")
    assert provider.bill().lines[0].duration_s >= 0.05


async def test_a_chunked_request_body_is_understood(http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        whole = request_body("fake-model")
        for start in range(0, len(whole), 5):
            yield whole[start : start + 5]

    async with http.post(f"{provider.url}/v1/chat/completions", data=pieces()) as response:
        assert response.status == 200
    assert provider.requests()[0].body.encode() == request_body("fake-model")
