"""What the search reads: all of a small repository; of a large one what its tests lead to, import by import."""

from __future__ import annotations

import ast
import re
from collections.abc import Generator, Iterator, Sequence

from tools.globs import matches
from tools.protocol import RESULT_HEAD, call_text

Reading = Generator[str, str, dict[str, str]]
"""Yields calls, is sent their answers, and returns contents by path."""
READ_CHARS = 100_000
MANY, MOST = 30, 24
"""With more than MANY sources, only the MOST first ones that the tests lead to are read."""
_CUT = re.compile(r"\[cut: lines \d+ to (\d+) of \d+ shown\]\n?\Z")


def read_repository(goal: str) -> Generator[str, str, tuple[dict[str, str], dict[str, str]]]:
    """(sources that may be edited, tests), by path, the most suspected sources of a large repository first."""
    patterns = _after(goal, "Files that may be edited: ").split(", ")
    paths = yield from _python_files(patterns)
    sources = [path for path in paths if matches(path, patterns) and not _is_test(path)]
    if len(sources) <= MANY:
        sources = [path for path in paths if matches(path, patterns)]
        contents = yield from read([*sources])
        tests = yield from read([path for path in paths if path.rpartition("/")[2].startswith("test_")])
        return contents, tests
    named = [each.partition("::")[0] for each in _after(goal, "Tests that must pass are run from: ").split(", ")]
    tests = yield from read(list(dict.fromkeys(path for path in named if path.endswith(".py"))))
    return (yield from _led_to(tests, sources)), tests


def _python_files(patterns: Sequence[str]) -> Generator[str, str, list[str]]:
    """The listing; where it is cut, what lies in the folders that may be edited."""
    listing = (yield call_text("list_files", max_files=2000)).splitlines()[1:]
    if listing and listing[-1].endswith("more files not shown]"):
        listing = []
        for folder in dict.fromkeys(pattern.removesuffix("/**") for pattern in patterns if pattern.endswith("/**")):
            if "*" not in folder:
                listing += (yield call_text("list_files", rel_dir=folder, max_files=2000)).splitlines()[1:]
    return [line for line in listing if line.endswith(".py")]


def read(paths: Sequence[str]) -> Reading:
    """Files in parts, so that all of each has been seen; what cannot be read is left out."""
    contents: dict[str, str] = {}
    for path in paths:
        text, start = "", 1
        while start:
            place = {"start_line": start} if start > 1 else {}
            answer = yield call_text("read_file", rel_path=path, max_chars=READ_CHARS, **place)
            part = answer.removeprefix(f"{RESULT_HEAD}\n")
            cut = _CUT.search(part)
            text += part[: cut.start()] if cut else part
            start = int(cut[1]) + 1 if cut and int(cut[1]) >= start else 0
        if not text.startswith(("error:", "[empty file]")):
            contents[path] = text
    return contents


def _led_to(tests: dict[str, str], sources: Sequence[str]) -> Reading:
    """Breadth first from the tests' own imports; a package leads to its `__init__.py`."""
    contents: dict[str, str] = {}
    queue = [path for test, text in tests.items() for path in _imported(test, text, sources)]
    while queue and len(contents) < MOST:
        path = queue.pop(0)
        if path not in contents:
            contents |= yield from read([path])
            queue += _imported(path, contents.get(path, ""), sources)
    return contents


def _imported(path: str, text: str, sources: Sequence[str]) -> Iterator[str]:
    """The sources that a file imports, in its order."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for name in _module_names(module, path.split("/")[:-1]):
        ends = (f"{name}.py", f"{name}/__init__.py")
        yield from (source for source in sources if source in ends or source.endswith(tuple(f"/{end}" for end in ends)))


def _module_names(module: ast.Module, package: Sequence[str]) -> Iterator[str]:
    """What is imported, as paths without an ending; `from a import b` may mean the module b or a name in a."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = "/".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = "/".join(part for part in (above, (node.module or "").replace(".", "/")) if part)
            yield from (f"{start}/{alias.name}" if start else alias.name for alias in node.names)
            if start:
                yield start


def _is_test(path: str) -> bool:
    return bool(re.search(r"(^|/)tests?/|(^|/)test_[^/]*$", path))


def _after(text: str, label: str) -> str:
    return text.partition(label)[2].partition("\n")[0]
