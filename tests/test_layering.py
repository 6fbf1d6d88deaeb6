"""The house: a folder imports only from folders under it, wherever in a file the import stands."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNDER = {
    "sandboxes": set[str](),
    "tools": {"sandboxes"},
    "harness": {"tools", "sandboxes"},
    "suites": {"harness", "tools", "sandboxes"},
    "eval": {"suites", "harness", "tools", "sandboxes"},
    "trainers": {"suites", "harness", "tools", "sandboxes"},
}
FRONT_DOORS = {"repo_agent", "repo_agent_pytest"}
NOT_CODE = ROOT / "suites" / "minibugs" / "tasks"


def modules(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if NOT_CODE not in path.parents]


def imports(source: str) -> Iterator[str]:
    """The modules that a source imports, by `import`, `from … import`, `__import__` and `import_module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("__import__", "import_module"):
                yield str(node.args[0].value)


@pytest.mark.parametrize("folder", UNDER)
def test_folder_imports_only_from_folders_under_it(folder: str) -> None:
    forbidden = (UNDER.keys() | FRONT_DOORS | {"tests", ""}) - UNDER[folder] - {folder}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imports(path.read_text(encoding="utf-8"))
        if name.split(".")[0] in forbidden
    ]
    assert modules(folder)
    assert not wrong


def test_imports_are_seen_wherever_they_stand() -> None:
    source = """
def f():
    import a.b
    from c import d
    from . import e
    importlib.import_module("g.h")
    __import__("i")
"""
    assert sorted(imports(source)) == [".", "a.b", "c", "g.h", "i"]


def test_packages_of_the_project_are_exactly_the_folders_with_modules() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for folder in UNDER for path in modules(folder)}
    assert listed == found
    assert [name for name in sorted(listed) if not (ROOT / name.replace(".", "/") / "__init__.py").is_file()] == []


def test_front_doors_are_listed_as_modules() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["py-modules"])
    assert listed == FRONT_DOORS == {path.stem for path in ROOT.glob("*.py")}


def test_no_module_shadows_a_library() -> None:
    names = {path.name for folder in UNDER for path in modules(folder)} | {path.name for path in ROOT.glob("*.py")}
    assert not names & {"docker.py", "datasets.py", "types.py"}


def test_builtin_eval_is_never_shadowed() -> None:
    wrong = [
        str(path)
        for path in [*ROOT.glob("*.py"), *(path for folder in (*UNDER, "tests") for path in modules(folder))]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        and any(alias.name.split(".")[0] == "eval" and not alias.asname for alias in node.names)
    ]
    assert not wrong
