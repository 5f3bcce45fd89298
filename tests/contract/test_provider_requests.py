"""How each provider is asked and what it answers, as its vendor shows it: address, credential, body, usage."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.wire.anthropic_messages import MESSAGES as MESSAGES_FORMAT
from llm_gateway.wire.format import Endpoint, Format, FormatRequest, StreamReader
from llm_gateway.wire.openai_chat import CHAT as CHAT_FORMAT
from llm_gateway.wire.openai_responses import RESPONSES as RESPONSES_FORMAT
from tests.support.local_http import serving
from tests.support.translating import Asker, asker_of, catalog_of

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, "seed": 7}
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
RESPONSES: dict[str, Any] = {"input": "Hi", "max_output_tokens": 50}

# Sources: the vendors' API references, the examples of "Create chat completion", "generateContent" and "Converse".
COMPLETION = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1763683200, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}  # fmt: skip
GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hello!"}]}, "finishReason": "STOP", "index": 0},
    ],
    "usageMetadata": {
        "promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "totalTokenCount": 16,
        "cachedContentTokenCount": 5,
    },
    "modelVersion": "m", "responseId": "r1",
}  # fmt: skip
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello!"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12},
    "metrics": {"latencyMs": 5},
}


@dataclass
class Vendor:
    """Answers everything with the same bytes, and remembers what it was asked."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.raw_path, headers, orjson.loads(await request.read())))
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:  # options are the plugin's own, of mixed types
    """asyncio's own loop: uvloop waits for ever in `close` for a connection of litellm's that another loop had."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
async def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(scope="module")
async def asker(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asker]:
    """One for all tests, so that they share one event loop: litellm's clients know but one."""
    async with serving(vendor.answer) as url:
        paths = {
            "openai": "/v1", "azure": "/openai/v1", "mistral": "/v1", "groq": "/openai/v1", "openrouter": "/api/v1",
            "ollama": "/v1", "vllm": "/v1", "llama.cpp": "/v1", "gemini": "/v1beta", "bedrock": "", "anthropic": "/v1",
        }  # fmt: skip
        deployments = {
            name: f'provider = "{name}"\nbase_url = "{url}{path}"\nmodel = "m"' for name, path in paths.items()
        }
        deployments["dated"] = f'{deployments["azure"]}\napi_version = "2024-10-21"'
        deployments["bedrock"] = deployments["bedrock"].replace('"m"', '"amazon.nova-lite-v1:0"')
        deployments["claude"] = deployments.pop("anthropic")
        async with asker_of(catalog_of(tmp_path_factory.mktemp("vendors"), deployments)) as made:
            yield made


@pytest.fixture(autouse=True)
def fresh(vendor: Vendor) -> None:
    vendor.asked.clear()
    vendor.status, vendor.headers = 200, {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("provider", "path", "credential", "maximum"),
    [
        ("openai", "/v1/chat/completions", ("authorization", "Bearer key-openai"), "max_completion_tokens"),
        ("azure", "/openai/v1/chat/completions", ("api-key", "key-azure"), "max_completion_tokens"),
        (
            "dated", "/openai/deployments/m/chat/completions?api-version=2024-10-21", ("api-key", "key-azure"),
            "max_completion_tokens",
        ),
        ("mistral", "/v1/chat/completions", ("authorization", "Bearer key-mistral"), "max_tokens"),
        ("groq", "/openai/v1/chat/completions", ("authorization", "Bearer key-groq"), "max_completion_tokens"),
        ("openrouter", "/api/v1/chat/completions", ("authorization", "Bearer key-openrouter"), "max_tokens"),
        ("ollama", "/v1/chat/completions", None, "max_tokens"),
        ("vllm", "/v1/chat/completions", None, "max_tokens"),
        ("llama.cpp", "/v1/chat/completions", None, "max_tokens"),
    ],
)  # fmt: skip
async def test_whoever_speaks_openais_format_is_asked_in_it_and_answers_anthropics_clients_too(  # noqa: PLR0917
    provider: str, path: str, credential: tuple[str, str] | None, maximum: str, asker: Asker, vendor: Vendor
) -> None:
    vendor.body = orjson.dumps(COMPLETION)
    passed = await asker.ask(provider, "chat", CHAT)
    assert passed.pieces == (vendor.body,)
    address, headers, body = vendor.asked[0]
    assert address == path
    names = {"authorization", "api-key", "x-api-key"}
    assert {name: headers[name] for name in names & headers.keys()} == dict([credential] if credential else [])
    assert body["model"] == "m"
    assert body.get("random_seed" if provider == "mistral" else "seed") == 7
    if "messages" not in asker.catalog.find(provider).deployments[0].native:
        translated = (await asker.ask(provider, "messages", MESSAGES)).body
        assert translated["content"] == [{"type": "text", "text": "Hello!"}]
        assert vendor.asked[1][0] == path
        assert vendor.asked[1][2][maximum] == 50


@pytest.mark.parametrize("endpoint", ["chat", "messages"])
async def test_gemini_is_asked_in_its_own_words_and_thoughts_are_output(
    endpoint: Any, asker: Asker, vendor: Vendor
) -> None:
    vendor.body = orjson.dumps(GEMINI)
    answer = (await asker.ask("gemini", endpoint, MESSAGES)).body
    path, headers, body = vendor.asked[0]
    assert path == "/v1beta/models/m:generateContent"
    assert headers["x-goog-api-key"] == "key-gemini"
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    assert body["generationConfig"]["max_output_tokens"] == 50
    usage = answer["usage"]
    if endpoint == "chat":
        assert answer["choices"][0]["message"]["content"] == "Hello!"
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (9, 7)
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 4
        assert usage["prompt_tokens_details"]["cached_tokens"] == 5
    else:
        assert answer["content"] == [{"type": "text", "text": "Hello!"}]
        assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (4, 5, 7)


UNCOUNTED = {name: value for name, value in GEMINI.items() if name != "usageMetadata"}
# Anthropic's: its usage stands in the first and in the last but one event.
UNCOUNTED_MESSAGE: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello!"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
]


def events_of(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)


async def translated_stream(asker: Asker, model: str, endpoint: Endpoint) -> StreamReader:
    """The reader of the gateway after the whole answer."""
    formats: dict[Endpoint, Format] = {"chat": CHAT_FORMAT, "messages": MESSAGES_FORMAT, "responses": RESPONSES_FORMAT}
    asked = RESPONSES if endpoint == "responses" else MESSAGES
    request = FormatRequest(body={**asked}, model="m", stream=True)
    options = {"stream_options": {"include_usage": True}} if endpoint == "chat" else {}
    reader = formats[endpoint].stream_reader(request, held_tokens=100)
    for piece in (await asker.ask(model, endpoint, {**asked, **options, "stream": True})).pieces:
        reader.feed(piece)
    return reader


@pytest.mark.parametrize("endpoint", ["chat", "messages", "responses"])
@pytest.mark.parametrize("model", ["gemini", "claude"])
async def test_what_litellm_counts_itself_is_no_usage(
    model: str, endpoint: Endpoint, asker: Asker, vendor: Vendor
) -> None:
    """It fills in what it counts with some vocabulary, and nothing tells it from what a provider reported."""
    vendor.headers = {"content-type": "text/event-stream"}
    gemini = b"data: %s\r\n\r\n" % orjson.dumps(UNCOUNTED)
    vendor.body = gemini if model == "gemini" else events_of(*UNCOUNTED_MESSAGE)
    reader = await translated_stream(asker, model, endpoint)
    assert (reader.complete, reader.counts, bytes(reader.text)) == (True, None, b"Hello!")


@pytest.mark.parametrize("endpoint", ["chat", "messages", "responses"])
async def test_noughts_that_litellm_makes_of_no_usage_are_none(
    endpoint: Endpoint, asker: Asker, vendor: Vendor
) -> None:
    message = {**UNCOUNTED_MESSAGE[0]["message"], "content": [{"type": "text", "text": "Hello!"}], "model": "m"}
    noughts = {"input_tokens": 0, "output_tokens": 0}
    vendor.body = orjson.dumps({**message, "stop_reason": "end_turn", "usage": noughts})
    answer = await asker.ask("claude", endpoint, RESPONSES if endpoint == "responses" else MESSAGES)
    if endpoint != "messages":  # which the provider speaks itself
        assert "usage" not in answer.body
    else:
        assert MESSAGES_FORMAT.read_whole(b"".join(answer.pieces)).counts is None


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("gemini", UNCOUNTED),
        ("bedrock", {name: value for name, value in CONVERSE.items() if name != "usage"}),
        ("claude", UNCOUNTED_MESSAGE[0]["message"]),
    ],
)
async def test_an_answer_that_litellm_cannot_read_was_given_and_is_paid_for(
    model: str, body: dict[str, Any], asker: Asker, vendor: Vendor
) -> None:
    """It says 422 of a Gemini answer without usage, as though the request had been refused, and then costs nothing."""
    vendor.body = orjson.dumps(body)
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask(model, "chat", MESSAGES)
    assert (failure.value.kind, failure.value.work_was_refused) == (FailureKind.UNUSABLE, False)


@pytest.mark.parametrize(
    ("model", "endpoint"),
    [("gemini", "chat"), ("gemini", "messages"), ("gemini", "responses"), ("claude", "chat"), ("claude", "responses")],
)
async def test_what_a_provider_says_of_the_prompt_at_first_is_known_when_the_client_leaves(
    model: str, endpoint: Endpoint, asker: Asker, vendor: Vendor
) -> None:
    vendor.headers = {"content-type": "text/event-stream"}
    begun = {**GEMINI, "candidates": [{"content": {"role": "model", "parts": [{"text": "Hel"}]}, "index": 0}]}
    start, *rest = UNCOUNTED_MESSAGE
    usage = {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 1}
    start = {**start, "message": {**start["message"], "usage": usage}}
    gemini = b"data: %s\r\n\r\n" % orjson.dumps(begun) * 3
    vendor.body = gemini if model == "gemini" else events_of(start, *rest)
    asked = RESPONSES if endpoint == "responses" else MESSAGES
    answer = await asker.begin(model, endpoint, {**asked, "stream": True})
    assert await answer.read()
    answer.abort()
    told = answer.reported()
    assert told is not None
    assert (told.input, told.cached_input) == (4, 5)
    assert told.output_tokens == (7 if model == "gemini" else 1)


async def test_geminis_stream_is_a_stream_of_chat_completions(asker: Asker, vendor: Vendor) -> None:
    first = {**GEMINI, "candidates": [{"content": {"role": "model", "parts": [{"text": "Hel"}]}, "index": 0}]}
    end = {"content": {"role": "model", "parts": [{"text": "lo!"}]}, "finishReason": "STOP", "index": 0}
    last = {**GEMINI, "candidates": [end]}
    vendor.body = b"".join(b"data: %s\r\n\r\n" % orjson.dumps(one) for one in (first, last))
    vendor.headers = {"content-type": "text/event-stream"}
    asked = {**MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    answer = await asker.ask("gemini", "chat", asked)
    assert vendor.asked[0][0] == "/v1beta/models/m:streamGenerateContent?alt=sse"
    deltas = [choice["delta"].get("content") or "" for event in answer.events for choice in event["choices"]]
    assert "".join(deltas) == "Hello!"
    assert answer.events[-1]["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize("endpoint", ["chat", "messages"])
async def test_bedrock_is_asked_with_a_signature(endpoint: Any, asker: Asker, vendor: Vendor) -> None:
    vendor.body = orjson.dumps(CONVERSE)
    answer = (await asker.ask("bedrock", endpoint, MESSAGES)).body
    path, headers, body = vendor.asked[0]
    assert path.startswith("/model/amazon.nova-lite-v1")
    assert path.endswith("/converse")
    scope = headers["authorization"]
    assert scope.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/bedrock/aws4_request" in scope
    assert headers["x-amz-security-token"] == "key-aws-session"
    assert body["inferenceConfig"]["maxTokens"] == 50
    names = ("prompt_tokens", "completion_tokens") if endpoint == "chat" else ("input_tokens", "output_tokens")
    assert [answer["usage"][name] for name in names] == [9, 3]


REFUSALS: list[tuple[str, int, dict[str, Any], dict[str, str], FailureKind, float | None]] = [
    (
        "azure", 429, {"error": {"code": "429", "message": "Requests have exceeded token rate limit."}},
        {"retry-after": "12", "retry-after-ms": "11500"}, FailureKind.RATE_LIMITED, 11.5,
    ),
    (
        "mistral", 422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "x"]}]}},
        {}, FailureKind.REJECTED, None,
    ),
    ("mistral", 401, {"message": "Unauthorized", "request_id": "r"}, {}, FailureKind.CREDENTIAL, None),
    (
        "groq", 413, {"error": {"message": "Request too large", "type": "tokens", "code": "rate_limit_exceeded"}},
        {}, FailureKind.REJECTED, None,
    ),
    ("openrouter", 402, {"error": {"code": 402, "message": "Insufficient credits"}}, {}, FailureKind.CREDENTIAL, None),
    ("ollama", 404, {"error": {"message": "model 'm' not found"}}, {}, FailureKind.MODEL_MISSING, None),
    (
        "gemini", 429, {"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}},
        {"retry-after": "30"}, FailureKind.RATE_LIMITED, 30.0,
    ),
    (
        "gemini", 400, {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}},
        {}, FailureKind.REJECTED, None,
    ),
    ("gemini", 503, {"error": {"code": 503, "status": "UNAVAILABLE"}}, {}, FailureKind.OVERLOADED, None),
    ("bedrock", 429, {"message": "Too many tokens"}, {}, FailureKind.RATE_LIMITED, None),
    ("bedrock", 403, {"message": "The security token is invalid."}, {}, FailureKind.CREDENTIAL, None),
    ("bedrock", 500, {"message": "Internal"}, {}, FailureKind.BROKEN, None),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "status", "body", "headers", "kind", "retry_after_s"), REFUSALS)
async def test_a_refusal_in_the_vendors_own_words_is_one_of_our_failures(  # noqa: PLR0917 -- one row of the table
    provider: str,
    status: int,
    body: dict[str, Any],
    headers: dict[str, str],
    kind: FailureKind,
    retry_after_s: float | None,
    asker: Asker,
    vendor: Vendor,
) -> None:
    vendor.status, vendor.body = status, orjson.dumps(body)
    vendor.headers = {"content-type": "application/json", **headers}
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask(provider, "chat", MESSAGES)
    assert (failure.value.kind, failure.value.status, failure.value.retry_after_s) == (kind, status, retry_after_s)
    assert len(vendor.asked) == 1
