"""A request's tools as OpenAI's template shows them to a model: as declarations in TypeScript, shorter than their JSON.

Nobody has documented it; this is what the counts of the API agree with (OpenAI cookbook, "How to count tokens with
tiktoken": 101 tokens for its example; litellm counts like this). A schema that says more than types, names and
descriptions stands there as its JSON, which is longer than whatever the template makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import orjson

_PLAIN: Final = {"boolean": "boolean", "integer": "number", "null": "null", "number": "number", "string": "string"}
_TYPES: Final = frozenset({"additionalProperties", "description", "enum", "items", "properties", "required", "type"})


def declared(tools: Iterable[object]) -> str:
    """The declarations of these tools, in whatever format the tools are."""
    return "\n".join(
        ["namespace functions {", "", *(line for tool in tools for line in _tool(tool)), "} // namespace functions"]
    )


def _tool(tool: object) -> Iterator[str]:
    fields = tool.get("function", tool) if isinstance(tool, dict) else tool
    if not isinstance(fields, dict):
        yield _json(tool)
        return
    if fields.get("description"):
        yield f"// {fields['description']}"
    schema = fields.get("parameters") or fields.get("input_schema") or {}
    yield f"type {fields.get('name')} = ({_arguments(schema)}) => any;"
    rest = {name: value for name, value in fields.items() if name not in _SHOWN}
    yield _json(rest) if rest else ""


_SHOWN: Final = frozenset(
    {"cache_control", "description", "function", "input_schema", "name", "parameters", "strict", "type"}
)


def _arguments(schema: object) -> str:
    if not isinstance(schema, dict) or not schema.keys() <= _TYPES:
        return _json(schema)
    return f"_: {_object(schema, 0)}" if schema.get("properties") else ""


def _object(schema: dict[str, object], indent: int) -> str:
    properties, required = schema.get("properties"), schema.get("required")
    lines = []
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if isinstance(inner, dict) and inner.get("description"):
            lines.append(f"// {inner['description']}")
        needed = isinstance(required, list) and name in required
        lines.append(f"{name}{'' if needed else '?'}: {_type(inner, indent)},")
    return "\n".join(["{", *(" " * indent + line for line in lines), "}"])


def _type(schema: object, indent: int) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(kind, str) or not schema.keys() <= _TYPES:
        return _json(schema)
    if isinstance(schema.get("enum"), list):
        return " | ".join(_json(one) for one in schema["enum"])
    if kind == "object":
        return _object(schema, indent + 2)
    return f"{_type(schema.get('items'), indent)}[]" if kind == "array" else _PLAIN.get(kind, kind)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
