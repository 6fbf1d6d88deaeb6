"""Run lines and paths of bugs: what is tests, configuration or source, what a patch touches, what is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.bugsinpy.bug import Rejected
from suites.bugsinpy.paths import is_configuration, is_documentation, is_test_path, patch_paths
from suites.bugsinpy.run_lines import read_run_lines

FILES = ("tests/test_a.py", "tests/pkg/__init__.py", "tests/pkg/test_a_b.py", "a_test.py")


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("pytest tests/test_a.py", ("tests/test_a.py",)),
        ("pytest -q -s ./tests//test_a.py::test_b", ("tests/test_a.py::test_b",)),
        ("python3.8 -m pytest -vv --tb=short tests/test_a.py::T::t", ("tests/test_a.py::T::t",)),
        ("py.test 'tests/test_a.py::test_b[a b;c|\"d\"]'", ('tests/test_a.py::test_b[a b;c|"d"]',)),
        ("pytest tests/test_a.py::test_b[(1,2)-x]", ("tests/test_a.py::test_b[(1,2)-x]",)),
        ("pytest a_test.py;pytest a_test.py;pytest tests/test_a.py", ("a_test.py", "tests/test_a.py")),
        ("tox tests/test_a.py::test_b", ("tests/test_a.py::test_b",)),
        ("python -m unittest -q tests.test_a", ("tests/test_a.py",)),
        ("python -m unittest tests.test_a.T a_test.T.t", ("tests/test_a.py::T", "a_test.py::T::t")),
        ("python -m unittest tests.pkg.__init__.T", ("tests/pkg/__init__.py::T",)),
        ("python -m unittest tests.pkg.T.t", ("tests/pkg/__init__.py::T::t",)),
        ("python -m unittest tests.pkg.test_a_b.T.t", ("tests/pkg/test_a_b.py::T::t",)),
        ("python -m unittest tests/test_a.py", ("tests/test_a.py",)),
        ("#!/bin/sh\n\npytest a_test.py", ("a_test.py",)),
    ],
)
def test_a_run_line_becomes_arguments_of_pytest(line: str, args: tuple[str, ...]) -> None:
    assert read_run_lines(line, FILES).test_args == args


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf /",
        "pytest tests/test_a.py && rm -rf /",
        "pytest tests/test_a.py > /etc/passwd",
        "pytest tests/test_a.py | sh",
        "pytest",
        "pytest -k name tests/test_a.py",
        "pytest -p evil tests/test_a.py",
        "pytest --rootdir=/ tests/test_a.py",
        "pytest @arguments.txt",
        "pytest /tests/test_a.py",
        "pytest tests/../../x.py",
        "pytest 'tests/test_a.py",
        "X=1 pytest tests/test_a.py",
        "sh -c 'pytest a_test.py'",
        "python -m http.server",
        "python -c 'import os'",
        "python -m unittest discover",
        "python -m unittest tests.test_ab.T",
        "python -m unittest tests.test_a..t",
    ],
)
def test_a_line_that_does_not_just_run_tests_is_rejected(line: str) -> None:
    with pytest.raises(Rejected, match=r"^run_test\.sh "):
        read_run_lines(line, FILES)


def test_paths_of_a_patch_are_those_of_its_headers() -> None:
    patch = (
        b"diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x\n"
        b"diff --git a/old name.py b/new name.py\nrename from old name.py\nrename to new name.py\n"
        b'diff --git "a/\\303\\244 \\"q\\".py" "b/\\303\\244 \\"q\\".py"\n'
        b'--- "a/\\303\\244 \\"q\\".py"\n+++ "b/\\303\\244 \\"q\\".py"\n@@ -1,2 +1 @@\n--- a/no.py\n x\n'
        b"diff --git a/empty file b/empty file\nnew file mode 100644\nindex 0000000..e69de29\n"
        b"diff --git a/x.bin b/x.bin\nindex 1..2 100644\nBinary files a/x.bin and b/x.bin differ\n"
        b"diff --git a/sp ace.py b/sp ace.py\n--- a/sp ace.py\t\n+++ b/sp ace.py\t\n@@ -1 +1 @@\n-a\n+b\n"
    )
    assert patch_paths(patch) == (
        *("new.py", "old name.py", "new name.py", 'ä "q".py', "empty file", "x.bin", "sp ace.py"),
    )


@given(
    st.lists(
        st.sampled_from([b"diff --git ", b"a/x b/x", b"--- ", b"+++ a", b"/", b"\n", b'"', b"\\3", b"@@", b"\xff"])
    )
)
def test_paths_of_anything_are_found_or_rejected(parts: list[bytes]) -> None:
    try:
        found = patch_paths(b"".join(parts))
    except Rejected:
        return
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in found)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("tornado/testing.py", "source"),
        ("pandas/_testing.py", "source"),
        ("scrapy/utils/test.py", "source"),
        ("pandas/conftest.py", "test"),
        ("tornado/test/runtests.py", "test"),
        ("lib/matplotlib/tests/baseline_images/x.png", "test"),
        ("keras/utils_test.py", "test"),
        ("httpie/tests.py", "test"),
        ("setup.py", "configuration"),
        ("requirements-dev.txt", "configuration"),
        (".travis.yml", "configuration"),
        (".github/workflows/x.yml", "configuration"),
        ("CHANGES.rst", "documentation"),
        ("docs/history.txt", "documentation"),
        ("LICENSE.txt", "documentation"),
        ("black.py", "source"),
    ],
)
def test_a_path_has_one_kind(path: str, kind: str) -> None:
    kinds = {
        "test": is_test_path(path),
        "configuration": is_configuration(path),
        "documentation": is_documentation(path),
    }
    assert [name for name, holds in kinds.items() if holds] == ([] if kind == "source" else [kind])
