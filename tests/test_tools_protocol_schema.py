"""The JSON schema of the protocol against its parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.protocol import TOOLS, call_text, final_text, parse
from tools.protocol_schema import protocol_schema

jsonschema: Any = pytest.importorskip("jsonschema", reason="comes with litellm")

VALIDATOR = jsonschema.Draft202012Validator(protocol_schema())
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(TEXT, st.integers(-5, 2005), st.booleans(), st.none())
NAMES = [*{key for tool in TOOLS.values() for key in tool.model_fields}, "path"]
ARGS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
CALLS = st.builds(
    lambda name, args, more: {"type": "tool_call", "name": name, "args": args, **more},
    st.sampled_from([*TOOLS, "rm"]),
    ARGS,
    st.sampled_from([{}, {"id": 1}]),
)
FINALS = st.builds(
    lambda kind, body: {"type": kind, **body},
    st.sampled_from(["final", "end"]),
    st.dictionaries(st.sampled_from(["summary", "why"]), VALUES, max_size=2),
)


def fits(message: Any) -> bool:
    return bool(VALIDATOR.is_valid(message))


@given(CALLS | FINALS)
def test_a_message_fits_the_schema_just_when_it_parses_strictly(message: dict[str, Any]) -> None:
    assert fits(message) == (parse(json.dumps(message)).problem is None)


@pytest.mark.parametrize(
    "text",
    [
        call_text("list_files"),
        call_text("read_file", rel_path="a.py", max_chars=100_000, start_line=7),
        call_text("grep", pattern="x" * 1000, rel_dir="."),
        call_text("write_file", rel_path="a.py", content='def f():\n\treturn "é\\n"\n'),
        final_text("done"),
    ],
)
def test_the_protocols_own_messages_fit(text: str) -> None:
    assert fits(json.loads(text))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("read_file", {}),
        ("grep", {"pattern": ""}),
        ("grep", {"pattern": "x" * 1001}),
        ("write_file", {"rel_path": "a.py", "content": "x" * 1_000_001}),
        ("list_files", {"max_files": True}),
    ],
)
def test_arguments_that_the_parser_refuses_do_not_fit(name: str, args: dict[str, Any]) -> None:
    text = call_text(name, **args)

    assert parse(text).problem is not None
    assert not fits(json.loads(text))


def test_an_integer_without_an_upper_limit_is_given_one() -> None:
    assert fits({"type": "tool_call", "name": "read_file", "args": {"rel_path": "a", "start_line": 2**53 - 1}})
    assert not fits({"type": "tool_call", "name": "read_file", "args": {"rel_path": "a", "start_line": 2**53}})


def test_properties_stand_in_the_order_of_the_protocols_messages() -> None:
    for tool in protocol_schema()["anyOf"][:-1]:
        assert list(tool["properties"]) == list(json.loads(call_text("list_files")))
