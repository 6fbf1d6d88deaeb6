"""The four tools: what they answer, what they refuse, and what a write may not lose."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.workspace import File, MappingTree, Mode, Workspace
from tools import files
from tools.files import FileState, ToolErrorKind, ToolResult, execute, lines_of, literal_prefix
from tools.globs import matches
from tools.protocol import call_text, parse

LONG = b"".join(b"line %d\n" % number for number in range(1, 101))
TREE = Workspace(
    MappingTree(
        {
            "README.md": b"# demo\nfoo in the text\n",
            "pkg/a.py": b"def foo():\n    return 1\n\n\ndef bar():\n    return foo()\n",
            "pkg/b.py": b"import a\r\nfoo = 2\r\n",
            "pkg/sub/c.py": b"x = 'foo'",
            "long.txt": LONG,
            "empty.py": b"",
            "image.png": b"\x89PNG\x00\x01foo",
            "latin.txt": "caf\u00e9 foo".encode("latin-1"),
            "nul.txt": b"text foo\0text",
            "huge.txt": b"foo\n" * 1_500_000,
            "wide.txt": b"w" * 5000 + b" foo\nshort\n",
            "link": File(b"pkg/a.py", Mode.SYMLINK),
            "folder": File(b"pkg/sub", Mode.SYMLINK),
            "outside": File(b"/etc/passwd", Mode.SYMLINK),
        }
    )
)


def call(state: FileState | Workspace, tool: str, **args: object) -> tuple[FileState, ToolResult]:
    """Carry out a call in a task where .py and .txt files may be edited."""
    if isinstance(state, Workspace):
        state = FileState(state)
    parsed = parse(call_text(tool, **args))
    assert parsed.problem is None, parsed.detail
    return execute(state, parsed, lambda path: path.endswith((".py", ".txt")))


def said(tool: str, **args: object) -> str:
    result = call(TREE, tool, **args)[1]
    assert result.error is None, result.content
    return result.content


def fault(tool: str, **args: object) -> ToolErrorKind | None:
    state, result = call(TREE, tool, **args)
    assert state.workspace is TREE
    assert result.content.startswith("error: ")
    return result.error


# ---- list_files


def test_list_gives_every_path_sorted() -> None:
    assert said("list_files").splitlines() == list(TREE.paths)
    assert said("list_files", rel_dir="pkg").splitlines() == ["pkg/a.py", "pkg/b.py", "pkg/sub/c.py"]
    assert said("list_files", rel_dir="./pkg/sub/") == "pkg/sub/c.py"


def test_list_follows_a_link_to_a_folder_inside_the_tree() -> None:
    assert said("list_files", rel_dir="folder") == "pkg/sub/c.py"


def test_list_says_how_many_files_it_leaves_out() -> None:
    result = call(TREE, "list_files", max_files=2)[1]
    assert result.content.splitlines() == ["README.md", "empty.py", f"[{len(TREE.paths) - 2} more files not shown]"]
    assert result.truncated


def test_list_of_an_empty_tree_says_so() -> None:
    assert call(Workspace(MappingTree({})), "list_files")[1].content == "[no files]"


def test_list_is_bounded_for_very_long_paths() -> None:
    tree = Workspace(MappingTree({f"{'d' * 200}/{'e' * 200}/{number:04}": b"" for number in range(2000)}))
    result = call(tree, "list_files", max_files=2000)[1]
    assert result.truncated
    assert len(result.content) < files.MAX_RESULT_CHARS + 100


@pytest.mark.parametrize(
    ("rel_dir", "kind"),
    [
        ("nowhere", ToolErrorKind.NOT_FOUND),
        ("pkg/a.py", ToolErrorKind.BAD_PATH),
        ("../pkg", ToolErrorKind.BAD_PATH),
        ("/etc", ToolErrorKind.BAD_PATH),
        ("outside", ToolErrorKind.BAD_PATH),
        ("a\0b", ToolErrorKind.BAD_PATH),
    ],
)
def test_list_refuses(rel_dir: str, kind: ToolErrorKind) -> None:
    assert fault("list_files", rel_dir=rel_dir) is kind


# ---- read_file


def test_read_gives_the_text() -> None:
    assert said("read_file", rel_path="pkg/a.py") == TREE.read("pkg/a.py").decode()
    assert said("read_file", rel_path="link") == TREE.read("pkg/a.py").decode()
    assert said("read_file", rel_path="folder/c.py") == "x = 'foo'"
    assert said("read_file", rel_path="empty.py") == "[empty file]"
    assert said("read_file", rel_path="pkg/b.py") == "import a\r\nfoo = 2\r\n"


def test_read_cuts_at_whole_lines_and_says_where() -> None:
    result = call(TREE, "read_file", rel_path="long.txt", max_chars=20, start_line=5)[1]
    assert result.content == "line 5\nline 6\n[cut: lines 5 to 6 of 100 shown]\n"
    assert result.truncated


def test_read_of_a_line_that_is_too_long_shows_its_beginning() -> None:
    result = call(TREE, "read_file", rel_path="wide.txt", max_chars=10)[1]
    assert result.content == "w" * 10 + "\n[cut: lines 1 to 0 of 2 shown]\n"


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ({"rel_path": "nowhere.py"}, ToolErrorKind.NOT_FOUND),
        ({"rel_path": "pkg"}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "."}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "pkg/../README.md"}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "/etc/passwd"}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "~/x"}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "pkg\\a.py"}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "outside"}, ToolErrorKind.BAD_PATH),
        ({"rel_path": "image.png"}, ToolErrorKind.NOT_TEXT),
        ({"rel_path": "latin.txt"}, ToolErrorKind.NOT_TEXT),
        ({"rel_path": "nul.txt"}, ToolErrorKind.NOT_TEXT),
        ({"rel_path": "huge.txt"}, ToolErrorKind.TOO_LARGE),
        ({"rel_path": "long.txt", "start_line": 101}, ToolErrorKind.NOT_FOUND),
    ],
)
def test_read_refuses(args: dict[str, Any], kind: ToolErrorKind) -> None:
    assert fault("read_file", **args) is kind


# ---- write_file


def test_write_replaces_and_creates() -> None:
    state, result = call(TREE, "write_file", rel_path="pkg/a.py", content="x = 1\n")
    assert result.content == "replaced pkg/a.py (1 lines)"
    state, result = call(state, "write_file", rel_path="./pkg/new/d.py", content="é\n\n")
    assert result.content == "created pkg/new/d.py (2 lines)"
    assert state.workspace.read("pkg/a.py") == b"x = 1\n"
    assert state.workspace.read("pkg/new/d.py") == "é\n\n".encode()
    assert TREE.read("pkg/a.py") != b"x = 1\n"


def test_write_keeps_the_line_ends_it_is_given() -> None:
    assert call(TREE, "write_file", rel_path="pkg/b.py", content="a\r\nb")[0].workspace.read("pkg/b.py") == b"a\r\nb"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("README.md", ToolErrorKind.NOT_EDITABLE),
        ("../x.py", ToolErrorKind.BAD_PATH),
        ("/tmp/x.py", ToolErrorKind.BAD_PATH),
        ("pkg/a.py/x.py", ToolErrorKind.BAD_PATH),
        ("folder/new.py", ToolErrorKind.BAD_PATH),
        ("x" * 300 + ".py", ToolErrorKind.BAD_PATH),
    ],
)
def test_write_refuses(path: str, kind: ToolErrorKind) -> None:
    assert fault("write_file", rel_path=path, content="x") is kind


def test_write_at_a_folder_or_through_a_link_is_refused() -> None:
    tree = Workspace(MappingTree({"a.py/b": b"", "link.py": File(b"a.py/b", Mode.SYMLINK)}))
    assert call(tree, "write_file", rel_path="a.py", content="x")[1].error is ToolErrorKind.BAD_PATH
    assert call(tree, "write_file", rel_path="link.py", content="x")[1].error is ToolErrorKind.BAD_PATH


def test_write_over_a_file_that_was_only_partly_seen_is_refused() -> None:
    state, _ = call(TREE, "read_file", rel_path="long.txt", max_chars=50)
    after, result = call(state, "write_file", rel_path="long.txt", content="short\n")
    assert result.error is ToolErrorKind.PARTLY_SEEN
    assert after.workspace is TREE


def test_write_over_a_file_that_was_seen_in_several_reads_is_allowed() -> None:
    state, _ = call(TREE, "read_file", rel_path="long.txt", start_line=60)
    assert call(state, "write_file", rel_path="long.txt", content="x")[1].error is ToolErrorKind.PARTLY_SEEN
    state, result = call(state, "read_file", rel_path="./long.txt", max_chars=520)
    assert "lines 1 to 66 of 100" in result.content
    assert call(state, "write_file", rel_path="long.txt", content="x")[1].error is None


def test_write_after_a_partial_read_through_a_link_is_refused() -> None:
    state, _ = call(TREE, "read_file", rel_path="link", max_chars=12)
    assert call(state, "write_file", rel_path="pkg/a.py", content="x")[1].error is ToolErrorKind.PARTLY_SEEN


def test_file_that_was_never_read_or_written_by_the_agent_may_be_written() -> None:
    state, _ = call(TREE, "write_file", rel_path="long.txt", content="a\nb\nc\n")
    state, _ = call(state, "read_file", rel_path="long.txt", max_chars=2)
    assert call(state, "write_file", rel_path="long.txt", content="x")[1].error is None


# ---- grep


def test_grep_names_path_line_and_text() -> None:
    assert said("grep", pattern=r"def \w+", rel_dir="pkg") == "pkg/a.py:1:def foo():\npkg/a.py:5:def bar():"
    assert said("grep", pattern="foo = ", rel_dir="pkg") == "pkg/b.py:2:foo = 2"
    assert said("grep", pattern="line 100$", rel_dir="long.txt") == "long.txt:100:line 100"
    assert said("grep", pattern="nothing like this") == "[no matches]"


def test_grep_passes_over_links_binaries_and_huge_files() -> None:
    found = {line.split(":")[0] for line in said("grep", pattern="foo").splitlines()}
    assert found == {"README.md", "latin.txt", "pkg/a.py", "pkg/b.py", "pkg/sub/c.py", "wide.txt"}


def test_grep_stops_at_max_matches_and_cuts_long_lines() -> None:
    result = call(TREE, "grep", pattern="line", max_matches=3, rel_dir="long.txt")[1]
    assert result.content.splitlines()[3:] == ["[stopped after 3 matches]"]
    assert result.truncated
    assert len(said("grep", pattern="foo", rel_dir="wide.txt")) < 500


def test_grep_result_is_bounded() -> None:
    tree = Workspace(MappingTree({"a.txt": (b"x" * 399 + b"\n") * 1000}))
    result = call(tree, "grep", pattern="x", max_matches=1000)[1]
    assert result.truncated
    assert len(result.content) < files.MAX_RESULT_CHARS + 100


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ({"pattern": "("}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "["}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "\\"}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "*"}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "x{999999999999}"}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "(?R)"}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "(?<q>a(?&q)?)z"}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "(" * 450 + "a" + ")" * 450}, ToolErrorKind.BAD_PATTERN),
        ({"pattern": "x", "rel_dir": "nowhere"}, ToolErrorKind.NOT_FOUND),
        ({"pattern": "x", "rel_dir": ".."}, ToolErrorKind.BAD_PATH),
        ({"pattern": "x", "rel_dir": "outside"}, ToolErrorKind.BAD_PATH),
        ({"pattern": "x", "rel_dir": "image.png"}, ToolErrorKind.NOT_TEXT),
        ({"pattern": "x", "rel_dir": "huge.txt"}, ToolErrorKind.TOO_LARGE),
    ],
)
def test_grep_refuses(args: dict[str, Any], kind: ToolErrorKind) -> None:
    assert fault("grep", **args) is kind


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(?:a{1,90}){1,90}$", r"^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_grep_that_backtracks_without_end_is_a_tool_error(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "GREP_LIMIT_S", 0.2)
    tree = Workspace(MappingTree({"a.txt": b"a" * 30_000 + b"!\n"}))
    result = call(tree, "grep", pattern=pattern)[1]
    assert result.error is ToolErrorKind.TOO_SLOW
    assert "simpler" in result.content


@given(st.text(st.sampled_from("ab()[]{}|*+?.^$\\1,-<>=!:#&PRLpNxi\n \u00e9\0"), min_size=1, max_size=25))
def test_grep_takes_any_pattern(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = call(Workspace(MappingTree({"a.txt": b"ab ba\xff\naabb\n"})), "grep", pattern=pattern)[1]
    assert result.content.encode()


PIECES = st.sampled_from(
    ["foo", "f", "o", " ", "=", "(", "\r", "\x0c", "\n", "\n", "\u00e9", "x_1", "\u2028", "\ufeff"]
)
LINES = st.lists(PIECES, max_size=30).map("".join).map(str.encode) | st.binary(max_size=30).map(
    lambda b: b"foo" + b + b"\nfoo"
)
PATTERNS = st.sampled_from(
    [
        "foo",
        "fo+",
        "foo?",
        "foo*",
        "foo{2}",
        "foo =",
        "foo[^x]",
        r"foo\b",
        "foo.*o",
        "x_1|f",
        "foo$",
        "o o",
        "foo(o|f)?",
        "f",
    ]
)

WITHIN = st.lists(
    st.sampled_from(["f", "o", r"\w", r"\b", ".", "[a-o]", "(o|f)", "*", "+", "?", "{1,2}", "|", " ", r"\d", "=", "é"]),
    min_size=1,
    max_size=5,
).map("".join)


@given(LINES, PATTERNS | WITHIN)
def test_quick_searches_find_the_same_lines_as_the_plain_one(content: bytes, pattern: str) -> None:
    tree = Workspace(MappingTree({"a.txt": content}))
    quick = call(tree, "grep", pattern=pattern)[1]
    plain = call(tree, "grep", pattern=f"(?:{pattern})")[1]
    assert literal_prefix(f"(?:{pattern})") == b""
    assert quick == plain or quick.error is plain.error is ToolErrorKind.BAD_PATTERN


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("foo", b"foo"),
        (r"foo\(", b"foo"),
        ("foo+", b"fo"),
        ("foo?", b"fo"),
        ("foo{0}", b"fo"),
        ("a|b", b""),
        ("^foo", b""),
        ("(?i)foo", b""),
        ("foo(?i:x)", b""),
        ("f*", b""),
        ("", b""),
    ],
)
def test_literal_prefix_is_text_that_every_match_begins_with(pattern: str, literal: bytes) -> None:
    assert literal_prefix(pattern) == literal


# ---- any call


ARGS = st.fixed_dictionaries(
    {},
    optional={
        "rel_path": st.sampled_from(TREE.paths) | st.text(max_size=8),
        "rel_dir": st.sampled_from([*TREE.paths, "pkg", "folder"]) | st.text(max_size=8),
        "pattern": st.just("foo") | st.text(max_size=8),
        "content": st.text(max_size=8),
        "max_chars": st.integers(-1, 200),
        "start_line": st.integers(-1, 200),
        "max_matches": st.integers(-1, 5),
        "max_files": st.integers(-1, 5),
    },
)


@given(st.lists(st.tuples(st.sampled_from(["list_files", "read_file", "grep", "write_file"]), ARGS), max_size=6))
def test_no_sequence_of_calls_raises(calls: list[tuple[str, dict[str, Any]]]) -> None:
    state = FileState(TREE.remove("huge.txt"))
    for tool, args in calls:
        parsed = parse(json.dumps({"type": "tool_call", "name": tool, "args": args}))
        if parsed.usable:
            before = state.workspace.digest
            state, result = execute(state, parsed, lambda path: True)
            assert result.content.encode()
            assert tool == "write_file" or state.workspace.digest == before


@given(st.text())
def test_lines_join_to_the_text(text: str) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    assert all(line.endswith("\n") for line in lines[:-1])
    assert all("\n" not in line[:-1] and line for line in lines)


# ---- path patterns


@pytest.mark.parametrize(
    ("path", "pattern", "matched"),
    [
        ("a.py", "*.py", True),
        ("pkg/a.py", "*.py", False),
        ("pkg/a.py", "**/*.py", True),
        ("a.py", "**/*.py", True),
        ("x/y/z/a.py", "x/**/a.py", True),
        ("x/a.py", "x/**/a.py", True),
        ("xy/a.py", "x/**/a.py", False),
        ("pkg/sub/a.py", "pkg/**", True),
        ("pkg", "pkg/**", False),
        ("a.pyc", "*.py", False),
        ("aXpy", "a.py", False),
        ("a\n.py", "a?.py", True),
        ("a/.py", "a?.py", False),
        ("a.py\n", "a.py", False),
        ("[x].py", "[x].py", True),
        ("x.py", "[x].py", False),
    ],
)
def test_globs(path: str, pattern: str, matched: bool) -> None:
    assert matches(path, [pattern]) is matched


@pytest.mark.parametrize("pattern", ["a{100000000}", "((a{1000}){1000}){1000}", "((a{1000}){100}){100}", "a{1,99999}"])
def test_grep_refuses_repeats_that_would_fill_the_memory(pattern: str) -> None:
    result = call(Workspace(MappingTree({"a.txt": b"aaa\n"})), "grep", pattern=pattern)[1]
    assert result.error is ToolErrorKind.BAD_PATTERN
