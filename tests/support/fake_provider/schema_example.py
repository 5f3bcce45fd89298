"""A value that fits a JSON schema, the same one every time: what the fake model answers when asked for structure."""

import json
from collections.abc import Mapping

_SCALARS: dict[str, object] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def example_json(schema: Mapping[str, object]) -> str:
    """JSON text (with blanks after `,` and `:`) of a value that fits the schema's usual parts.

    Understood: type, properties, items, enum, const, anyOf, oneOf, allOf, `#/$defs/…` references, minItems.
    """
    return json.dumps(_example(schema, schema, 0), ensure_ascii=False)


def _example(schema: object, root: Mapping[str, object], depth: int) -> object:
    chosen = _chosen(schema, root) if isinstance(schema, dict) else None
    if chosen is not None and depth < 16:
        return _example(chosen, root, depth + 1)
    if not isinstance(schema, dict) or depth >= 16:
        return {}
    fixed = schema["const"] if "const" in schema else schema.get("enum")
    if fixed is not None:
        return fixed[0] if isinstance(fixed, list) else fixed
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "array":
        wanted = max(int(schema.get("minItems", 0)), 1)
        return [_example(schema.get("items", {"type": "string"}), root, depth + 1) for _ in range(wanted)]
    properties = schema.get("properties", {})
    return {name: _example(part, root, depth + 1) for name, part in properties.items()}


def _chosen(schema: Mapping[str, object], root: Mapping[str, object]) -> object:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        found: object = root
        for name in reference.removeprefix("#/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return found
    for name in ("anyOf", "oneOf", "allOf"):
        options = schema.get(name)
        if isinstance(options, list) and options:
            return options[0]
    return None
