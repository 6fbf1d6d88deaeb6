"""The JSON schema of the protocol's messages, for engines that decode under a grammar.

It is made from the argument models that `tools.protocol.parse` checks with. A message that fits it parses strictly,
with one exception that a schema cannot state: half of a surrogate pair, written as an escape, is not valid text. `args`
is required here where the parser takes its absence for `{}`. Properties stand in the order of the protocol's own
messages, which engines keep. An integer without an upper limit is given one: Python reads no thousands
of digits.
"""

from __future__ import annotations

from typing import Any

from tools.protocol import FINAL, TOOLS, Final

_LARGEST_INTEGER = 2**53 - 1
"""Up to here every reader of JSON agrees."""


def protocol_schema() -> dict[str, Any]:
    """One assistant message: a call of any tool, or a final answer."""
    return {"anyOf": [*(_call_schema(name) for name in TOOLS), _final_schema()]}


def _call_schema(name: str) -> dict[str, Any]:
    args = _object(TOOLS[name].model_json_schema())
    return _closed({"type": {"const": "tool_call"}, "name": {"const": name}, "args": args}, ["type", "name", "args"])


def _final_schema() -> dict[str, Any]:
    body = _object(Final.model_json_schema())
    return _closed({"type": {"const": FINAL}, **body["properties"]}, ["type", *body["required"]])


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        {name: _field(field) for name, field in schema["properties"].items()},
        schema.get("required", []),
    )


def _field(schema: dict[str, Any]) -> dict[str, Any]:
    """What pydantic says of a field, without what constrains nothing."""
    kept = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
    return {"maximum": _LARGEST_INTEGER, **kept} if kept["type"] == "integer" else kept


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
