"""A picture within a request is bytes that pass: nobody looks into it, and it holds nobody up.

BerriAI/litellm#13546: with pictures in base64, calls took 10 s instead of 1.5 s from 15 a second on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from llm_gateway.caller import Policy
from llm_gateway.catalog import Catalog
from llm_gateway.plan import plan_call
from llm_gateway.routing.choose import order_routes
from llm_gateway.wire.anthropic_messages import MESSAGES
from llm_gateway.wire.format import Format
from llm_gateway.wire.openai_chat import CHAT
from llm_gateway.wire.openai_responses import RESPONSES
from tests.support.catalogs import catalog_of
from tests.support.untraced import cpu_s

MODELS = """
[[models]]
name = "sees"
context_window = 10_000
max_output_tokens = 100
image_tokens = 1000
endpoints = ["chat", "messages", "responses"]
[[models.deployments]]
base_url = "http://sees"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 1 }
"""
NO_BASE64 = "data:image/png;base64,!no base64 at all!"
MEGABYTES = 6
FORMATS = pytest.mark.parametrize("format_", [CHAT, MESSAGES, RESPONSES], ids=lambda one: one.endpoint)


def asked(format_: Format, picture: str) -> bytes:
    kind, data = picture.removeprefix("data:").split(";base64,", 1)
    if format_ is RESPONSES:
        part: dict[str, Any] = {"type": "input_image", "image_url": picture}
        return orjson.dumps({"model": "sees", "max_output_tokens": 9, "input": [{"role": "user", "content": [part]}]})
    if format_ is CHAT:
        part = {"type": "image_url", "image_url": {"url": picture}}
    else:
        part = {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
    return orjson.dumps({"model": "sees", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]})


def sent(catalog: Catalog, format_: Format, raw: bytes) -> bytes:
    """What goes to the provider: all of our own work on a request."""
    request = format_.parse(raw, {b"anthropic-version": b"2023-06-01"}, max_json_depth=64)
    routes = order_routes(
        catalog, catalog.find("sees"), endpoint=format_.endpoint, rests=lambda _: False, allows=lambda _: True
    )
    [hop] = plan_call(format_, request, routes, Policy()).hops
    assert 1000 <= hop.estimate.tokens < 1300  # by their number and not by their bytes
    return orjson.dumps(format_.upstream_body(request, hop.deployment, hop.estimate))


@FORMATS
def test_a_picture_is_not_decoded(format_: Format, tmp_path: Path) -> None:
    raw = asked(format_, NO_BASE64)
    assert NO_BASE64.partition(",")[2].encode() in sent(catalog_of(tmp_path, MODELS), format_, raw)


@FORMATS
def test_a_large_picture_takes_little_longer_than_copying_it(format_: Format, tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, MODELS)
    raw = asked(format_, "data:image/png;base64," + "A" * (MEGABYTES * 2**20))
    yardstick_s = cpu_s(lambda: _copied_and_parsed(raw))
    cost_s = cpu_s(lambda: sent(catalog, format_, raw))
    assert cost_s < 0.1 + 4 * yardstick_s, f"{cost_s * 1000:.0f} ms, yardstick {yardstick_s * 1000:.0f} ms"


def _copied_and_parsed(raw: bytes) -> None:
    for _ in range(3):
        raw.translate(None, b"\1")
    json.loads(raw)
