"""The OpenAPI document as one plain HTML page: no script, no font, no address but ours."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

# An OpenAPI document is JSON of any shape.
Json = Mapping[str, Any]

_METHODS: Final = ("get", "post", "patch", "put", "delete")
_STYLE: Final = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
h2{margin-top:2.5rem;text-transform:capitalize}
details{border:1px solid #8884;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary b{display:inline-block;width:4.5rem}code,pre{font:14px/1.45 ui-monospace,monospace}
pre{overflow:auto;background:#8881;padding:.6rem;border-radius:6px}table{border-collapse:collapse}
td{padding:.15rem .8rem .15rem 0;vertical-align:top}.quiet{opacity:.7}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render_page(document: Json) -> bytes:
    """The whole document as HTML: operations by tag, then schemas; every word of it escaped."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>',
        f"<h1>{title}</h1><p>{escape(document['info'].get('description') or '')}</p>",
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>',
    ]
    for tag, operations in _by_tag(document).items():
        parts += [f"<h2>{escape(tag)}</h2>", *(_operation(*operation) for operation in operations)]
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(document.get("components", {}).get("schemas", {}).items()):
        parts.append(f'<details id="{escape(name)}"><summary>{escape(name)}</summary>{_json(schema)}</details>')
    return "".join(parts).encode()


def _by_tag(document: Json) -> dict[str, list[tuple[str, str, Json]]]:
    tags: dict[str, list[tuple[str, str, Json]]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if operation := item.get(method):
                tags.setdefault(next(iter(operation.get("tags", ())), "other"), []).append((method, path, operation))
    return tags


def _operation(method: str, path: str, operation: Json) -> str:
    signed_in = "Needs a bearer token." if operation.get("security") else "Open to everybody."
    return "".join(
        [
            f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code></summary>",
            f"<p>{escape(operation.get('description') or '')}</p><p class='quiet'>{signed_in}</p>",
            _table(_parameters(operation)),
            *_request_body(operation),
            _table(_responses(operation)),
            "</details>",
        ]
    )


def _parameters(operation: Json) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", ()):
        needed = "required" if parameter.get("required") else "optional"
        about = f"{parameter['in']}, {needed}. {parameter.get('description') or ''}"
        yield f"<code>{escape(parameter['name'])}</code>", escape(about)


def _request_body(operation: Json) -> Iterator[str]:
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: <code>{escape(media_type)}</code> {_schema_name(content)}</p>"


def _responses(operation: Json) -> Iterator[tuple[str, str]]:
    for status, response in operation["responses"].items():
        names = " ".join(_schema_name(content) for content in response.get("content", {}).values())
        yield f"<b>{escape(status)}</b>", f"{escape(response.get('description') or '')} {names}"


def _schema_name(content: Json) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _table(rows: Iterator[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{left}</td><td>{right}</td></tr>" for left, right in rows)
    return f"<table>{body}</table>" if body else ""


def _json(value: Json) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
