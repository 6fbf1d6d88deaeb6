"""What a model writes is read, or named as a problem, and never raised."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.protocol import (
    FINAL,
    TOOLS,
    Grep,
    ListFiles,
    ParseProblem,
    ReadFile,
    ToolCall,
    arguments,
    call_text,
    final_text,
    parse,
)

LIST = '{"type": "tool_call", "name": "list_files", "args": {"rel_dir": "src"}}'
TEXT = st.text(st.characters(exclude_categories=[]))  # lone surrogates included
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
NEAR = st.fixed_dictionaries(
    {"type": st.sampled_from(["tool_call", "final", "other"]) | JSON},
    optional={
        "name": st.sampled_from([*TOOLS, "final", "rm"]) | JSON,
        "args": JSON
        | st.dictionaries(
            st.sampled_from(["rel_path", "rel_dir", "pattern", "max_files", "content"]) | TEXT, JSON, max_size=4
        ),
        "summary": JSON,
        "thought": JSON,
    },
)


def test_strict_call_has_no_problem() -> None:
    call = parse(LIST)
    assert (call.name, call.args, call.raw, call.problem, call.repaired) == (
        "list_files",
        {"rel_dir": "src"},
        LIST,
        None,
        False,
    )
    assert call.usable


def test_strict_final_has_no_problem() -> None:
    call = parse('{"type": "final", "summary": "done"}')
    assert (call.name, call.args, call.problem) == (FINAL, {"summary": "done"}, None)


def test_white_space_around_the_object_is_strict() -> None:
    assert parse(f"\n  {LIST}\n").problem is None


def test_arguments_may_be_left_out_where_all_have_defaults() -> None:
    call = parse('{"type": "tool_call", "name": "list_files"}')
    assert call.problem is None
    assert arguments(call) == ListFiles(max_files=200)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"```json\n{LIST}\n```", ParseProblem.CODE_FENCE),
        (f"```\n{LIST}\n```", ParseProblem.CODE_FENCE),
        (f"I look first.\n{LIST}", ParseProblem.TEXT_AROUND),
        (f"{LIST}\nThat was it.", ParseProblem.TEXT_AROUND),
        (f"Code: f(x) = {{x}} and {{'a': 1}}\n{LIST}", ParseProblem.TEXT_AROUND),
        (f"<think>maybe {{}}</think>{LIST}", ParseProblem.TEXT_AROUND),
        (f"{LIST}{LIST}", ParseProblem.SEVERAL_OBJECTS),
        (f"{LIST}\n" + '{"type": "final", "summary": ""}', ParseProblem.SEVERAL_OBJECTS),
        (f'{LIST}\n{{"type": "tool_call", "name": "grep"', ParseProblem.TEXT_AROUND),
        ('{"type": "tool_call", "name": "list_files", "args": {"rel_dir": "src"}, "args": {"rel_dir": "src"}}', None),
    ],
)
def test_intended_call_is_read_and_the_cause_named(text: str, problem: ParseProblem | None) -> None:
    call = parse(text)
    assert (call.name, call.args, call.problem) == ("list_files", {"rel_dir": "src"}, problem)
    assert call.repaired == (problem is not None)
    assert call.usable


def test_raw_newlines_inside_a_string_are_repaired() -> None:
    call = parse(
        '{"type": "tool_call", "name": "write_file", "args": {"rel_path": "a.py", "content": "x = 1\n\ty = 2\n"}}'
    )
    assert (call.problem, call.repaired) == (ParseProblem.RAW_CONTROL, True)
    assert call.args["content"] == "x = 1\n\ty = 2\n"


def test_first_of_several_objects_counts() -> None:
    call = parse('{"type": "final", "summary": "a"} {"type": "final", "summary": "b"}')
    assert (call.args, call.problem) == ({"summary": "a"}, ParseProblem.SEVERAL_OBJECTS)


def test_last_of_duplicate_keys_counts_as_in_json() -> None:
    assert parse('{"type": "final", "summary": "a", "summary": "b"}').args == {"summary": "b"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ParseProblem.NOT_JSON),
        ("I am done.", ParseProblem.NOT_JSON),
        ("{}{}{", ParseProblem.NOT_JSON),
        ("{'type': 'final'}", ParseProblem.NOT_JSON),
        ('{"type": "final", "summary": "a",}', ParseProblem.NOT_JSON),
        ("null", ParseProblem.NOT_PROTOCOL),
        ("[1, 2]", ParseProblem.NOT_PROTOCOL),
        (f"[{LIST}]", ParseProblem.NOT_PROTOCOL),
        ('"final"', ParseProblem.NOT_PROTOCOL),
        ('{"name": "list_files"}', ParseProblem.NOT_PROTOCOL),
        ('{"type": ["final"]}', ParseProblem.NOT_PROTOCOL),
        ('{"type": "tool_call", "name": "list_fi', ParseProblem.TRUNCATED),
        ('{"type": "tool_call", "name": "list_files"', ParseProblem.TRUNCATED),
        ('```json\n{"type": "tool_call", "name": "write_file", "args": {"content": "a\\n', ParseProblem.TRUNCATED),
        ('{"type": "tool_call", "name": "run_shell", "args": {}}', ParseProblem.UNKNOWN_TOOL),
        ('{"type": "tool_call", "name": null}', ParseProblem.UNKNOWN_TOOL),
        ('{"type": "tool_call", "name": "final"}', ParseProblem.UNKNOWN_TOOL),
        ('{"type": "tool_call"}', ParseProblem.UNKNOWN_TOOL),
        ('{"type": "tool_call", "name": "read_file", "args": {}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "read_file", "args": []}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "read_file", "args": null}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "read_file", "args": {"rel_path": 1}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "read_file", "args": {"path": "a"}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "list_files", "args": {"max_files": "3"}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "list_files", "args": {"max_files": 1e999}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "list_files", "args": {"max_files": NaN}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "list_files", "args": {"max_files": 0}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "list_files", "args": {"max_files": true}}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "tool_call", "name": "list_files", "args": {}, "why": "because"}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "final", "summary": 5}', ParseProblem.BAD_ARGUMENTS),
        ('{"type": "final", "summary": "", "extra": 1}', ParseProblem.BAD_ARGUMENTS),
        (r'{"type": "final", "summary": "\ud800"}', ParseProblem.BAD_ARGUMENTS),
        (r'{"type": "tool_call", "name": "list_files", "args": {"\ud800": 1}}', ParseProblem.BAD_ARGUMENTS),
    ],
)
def test_unusable_message_is_kept_with_its_problem(text: str, problem: ParseProblem) -> None:
    call = parse(text)
    assert (call.problem, call.usable, call.raw) == (problem, False, text)
    assert call.detail


def test_problem_inside_a_fence_is_told_by_its_meaning() -> None:
    assert parse('```json\n{"type": "tool_call", "name": "run"}\n```').problem is ParseProblem.UNKNOWN_TOOL


def test_message_cut_off_at_the_token_limit_is_truncated_whatever_it_looks_like() -> None:
    assert parse("Let me think about", cut_off=True).problem is ParseProblem.TRUNCATED


def test_complete_object_counts_even_if_the_text_after_it_was_cut_off() -> None:
    assert parse(f"{LIST} and then", cut_off=True).problem is ParseProblem.TEXT_AROUND


def test_rewording_does_not_change_the_canonical_form() -> None:
    first = parse('thought one {"type":"tool_call","name":"grep","args":{"pattern":"x","rel_dir":"a"}}')
    second = parse('{"args": {"rel_dir": "a", "pattern": "x"}, "name": "grep", "type": "tool_call"}')
    assert first.canonical == second.canonical != parse(LIST).canonical


def test_defaults_are_filled_in() -> None:
    assert arguments(parse(call_text("read_file", rel_path="a.py"))) == ReadFile(
        rel_path="a.py", max_chars=20_000, start_line=1
    )
    assert arguments(parse(call_text("grep", pattern="x", max_matches=3))) == Grep(pattern="x", max_matches=3)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 1_000_000,
        "[" * 1_000_000,
        '{"a":' * 200_000,
        '{"type":"tool_call","name":"grep","args":' + "[" * 200_000,
        '{"type":"tool_call","name":"list_files","args":{"rel_dir":' + "[" * 900 + "]" * 900 + "}}",
        '{"' * 500_000,
        '{"type": "final", "summary": "' + "{" * 1_000_000,
        "{ " + '"a' * 500_000,
        '{"type": "final", "summary": ' + "9" * 1_000_000 + "}",
        '{"type": "tool_call", "name": "list_files", "args": {"max_files": ' + "9" * 4000 + "}}",
        "```json\n" * 100_000,
        "{}" * 300_000,
    ],
    ids=lambda text: text[:20],
)
def test_bombs_are_told_in_bounded_time(text: str) -> None:
    started = time.process_time()
    assert not parse(text).usable
    assert time.process_time() - started < 20  # not quadratic; a figure for a very slow machine


@given(TEXT, st.booleans())
def test_parse_takes_any_text(text: str, cut_off: bool) -> None:
    check(parse(text, cut_off))


@given(JSON | NEAR)
def test_parse_takes_any_json(value: Any) -> None:
    for text in (
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        f"```\n{json.dumps(value)}\n```",
        json.dumps(value)[:-3],
    ):
        check(parse(text))


def test_half_of_a_surrogate_pair_in_the_text_is_replaced() -> None:
    assert parse("\ud800").raw == "?"


def check(call: ToolCall) -> None:
    """It can be stored and read back, and carried out where it is usable."""
    assert ToolCall.model_validate_json(call.model_dump_json()) == call
    assert call.canonical.encode()
    if call.usable:
        assert arguments(call)


PLAIN = st.text(st.characters(exclude_categories=["Cs"]))


@given(PLAIN, PLAIN)
def test_call_text_round_trip(path: str, content: str) -> None:
    call = parse(call_text("write_file", rel_path=path, content=content))
    assert (call.name, call.args, call.problem) == ("write_file", {"rel_path": path, "content": content}, None)


@given(PLAIN)
def test_final_text_round_trip(summary: str) -> None:
    call = parse(final_text(summary))
    assert (call.name, call.args, call.problem) == (FINAL, {"summary": summary}, None)


def test_the_same_call_has_one_canonical_form() -> None:
    forms: list[dict[str, object]] = [{}, {"rel_dir": "."}, {"rel_dir": "./"}, {"max_files": 200}]
    assert len({parse(call_text("list_files", **form)).canonical for form in forms}) == 1
