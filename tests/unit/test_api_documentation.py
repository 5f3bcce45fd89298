"""The OpenAPI document and its page, from a real application that is connected to nothing."""

import re
from pathlib import Path
from typing import Any

import pytest

from api.app import build_litestar
from api.documentation.page import CONTENT_SECURITY_POLICY, render_page
from core.settings import load_settings
from llm_gateway import create_gateway

# Any: an OpenAPI document is JSON of any shape
Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    settings = load_settings(
        {
            "BUTTRESS_SUPABASE_URL": "http://127.0.0.1:1",
            "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
            "BUTTRESS_JWT_SECRET": "x" * 32,
            "BUTTRESS_GATEWAY_DATABASE_URL": "postgresql://gateway_service:x@127.0.0.1:1/postgres",
            "BUTTRESS_KEY_PEPPER": "x" * 32,
            "BUTTRESS_MODELS_FILE": str(Path("llm_gateway/models.toml").resolve()),
        }
    )
    return build_litestar(settings, create_gateway(settings, environ={})).openapi_schema.to_schema()


def operations(document: Json) -> list[tuple[str, Json]]:
    return [
        (f"{method} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in {"get", "post", "patch", "put", "delete"}
    ]


def test_it_is_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1")


def test_every_refusal_is_documented_in_the_one_shape(document: Json) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (name, status)


def test_every_operation_that_reads_a_body_documents_how_it_refuses_one(document: Json) -> None:
    for name, operation in operations(document):
        if "requestBody" in operation:
            assert {"400", "408", "413", "415", "422"} <= set(operation["responses"]), name


def test_every_operation_says_what_it_does(document: Json) -> None:
    for name, operation in operations(document):
        assert operation["description"].endswith("."), name
        assert operation["tags"], name
    assert len({operation["operationId"] for _, operation in operations(document)}) == len(operations(document))


def test_the_page_names_every_operation_and_needs_nobody_else(document: Json) -> None:
    page = render_page(document).decode()
    for path in document["paths"]:
        assert path in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


def test_the_page_shows_markup_in_the_document_as_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    operation = {"description": evil, "tags": [evil], "responses": {"200": {"description": evil}}}
    page = render_page({"info": {"title": evil, "version": "1"}, "paths": {f"/{evil}": {"get": operation}}})
    assert evil.encode() not in page
