"""The guest as source text: one name means one thing in it, and old interpreters can read it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from sandboxes.guest_bundle import PARTS, _part, guest_source, guest_version, reporter_source

OLDEST = (3, 6)


def defined_names(source: str) -> set[str]:
    """What a part defines at its top level, imports left out."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return names


def test_no_two_parts_define_the_same_name() -> None:
    counts = Counter(name for part in PARTS for name in defined_names(_part(part)))
    assert [name for name, count in counts.items() if count > 1] == []
    assert len(counts) > 100


def test_the_bundle_is_python_of_the_oldest_supported_version() -> None:
    ast.parse(guest_source(), feature_version=OLDEST)


def test_the_bundle_imports_the_standard_library_and_pytest_only() -> None:
    imported = set()
    for node in ast.walk(ast.parse(guest_source())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names | {"pytest", "_pytest"}
    assert "sandboxes" not in imported


def test_the_reporter_stands_alone() -> None:
    names = defined_names(reporter_source())
    assert {"run_pytest", "warm_up"} <= names
    compile(reporter_source(), "<reporter>", "exec")


def test_the_version_is_that_of_the_code() -> None:
    assert len(guest_version()) == 16


def test_a_plugin_that_needs_the_tree_means_a_cold_start_and_not_the_end(tmp_path: Path) -> None:
    code = "from sandboxes.guest.reporter import warm_up; import sys; print(warm_up(sys.argv[1]))"
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | {"PYTEST_PLUGINS": plugins},
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.splitlines()[-1]
        .strip()
        for plugins in ("", "a_package_of_the_tree")
    ]
    assert said == ["True", "False"]
