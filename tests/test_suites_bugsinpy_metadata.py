"""The 501 bug directories of BugsInPy, and others' sets in its format: each read right, or rejected with the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.bugsinpy.additions import ADDITIONS, GENERATED
from suites.bugsinpy.bug import Bug
from suites.bugsinpy.metadata import COMMIT, UPSTREAM, is_wanted, read_bugs
from suites.bugsinpy.paths import (
    EDITABLE,
    PROTECTED,
    editable_patterns,
    is_configuration,
    is_documentation,
    is_test_path,
    patch_paths,
)
from suites.bugsinpy.run_lines import read_run_lines
from suites.fetch import git_files, git_repository
from tools.globs import matches

Files = Mapping[str, bytes]
Read = tuple[list[Bug], dict[str, str]]


@pytest.fixture(scope="module")
def upstream() -> Files:
    files = git_files(git_repository(UPSTREAM, [COMMIT]), COMMIT, is_wanted)
    return {path: file.content for path, file in files.items()}


@pytest.fixture(scope="module")
def read(upstream: Files) -> Read:
    return read_bugs(upstream)


def by_id(read: Read) -> dict[str, Bug]:
    return {bug.id: bug for bug in read[0]}


PROJECTS = {
    **{"PySnooper": 3, "ansible": 18, "black": 23, "cookiecutter": 4, "fastapi": 16, "httpie": 5, "keras": 45},
    **{"luigi": 33, "matplotlib": 30, "pandas": 169, "sanic": 5, "scrapy": 40, "spacy": 10, "thefuck": 32},
    **{"tornado": 16, "tqdm": 9, "youtube-dl": 43},
}
IRREGULAR = {
    "bug.info: CRLF": 10,
    "bug.info: a path that is not in normal form": 2,
    "bug.info: an abbreviated commit": 168,
    "bug.info: blanks after a value": 141,
    "bug.info: blanks around =": 42,
    "bug.info: pythonpath": 31,
    "bug.info: several test files": 32,
    "project.info: a name in capitals": 33,
    "project.info: an address that ends in /": 5,
    "project.info: blanks after a value": 229,
    "project.info: blanks around =": 33,
    "project.info: pythonpath": 38,
    "requirements.txt: CRLF": 117,
    "requirements.txt: UTF-16": 117,
    "requirements.txt: empty": 78,
    "requirements.txt: missing": 1,
    "requirements: Windows only": 110,
    "requirements: pkg-resources": 13,
    "requirements: ranges, not pins": 9,
    "requirements: the project itself, by address": 166,
    "requirements: the project itself, by version": 145,
    "run_test.sh: a path that is not in normal form": 2,
    "run_test.sh: blank lines": 2,
    "run_test.sh: several commands on one line": 1,
    "run_test.sh: several tests in one command": 1,
    "setup.sh: of the standard library": 16,
    "setup.sh: the project itself, by address": 6,
    "setup.sh: the project itself, by version": 7,
    "setup.sh: the project's own requirements.txt": 10,
}


def test_every_directory_is_read_but_the_one_without_a_patch(read: Read) -> None:
    bugs, rejected = read
    assert rejected == {"keras-12": "no bug: its patch is empty"}
    assert Counter(bug.project for bug in bugs) + Counter(keras=1) == PROJECTS
    assert sum(PROJECTS.values()) == 501
    assert [bug.number for bug in bugs if bug.project == "keras"] == [n for n in range(1, 46) if n != 12]


def test_every_irregularity_is_counted(read: Read) -> None:
    assert Counter(phrase for bug in read[0] for phrase in bug.irregular) == IRREGULAR


def test_wanted_pythons_are_those_of_the_files(read: Read) -> None:
    wanted = {"3.6.9": 31, "3.7.0": 58, "3.7.3": 49, "3.7.4": 33, "3.7.7": 9, "3.8.1": 33, "3.8.3": 287}
    assert Counter(bug.python for bug in read[0]) == wanted
    assert {bug.environment.python for bug in read[0]} == {"3.6", "3.7", "3.8"}


def test_environments_become_few_by_cleaning(read: Read, upstream: Files) -> None:
    raw = {(bug.python, upstream.get(f"projects/{bug.project}/bugs/{bug.number}/requirements.txt")) for bug in read[0]}
    assert len(raw) == 206  # a missing file is not an empty one
    specs = {bug.environment for bug in read[0]}
    assert len(specs) == len({spec.fingerprint for spec in specs}) == 65
    assert len({(spec.python, spec.requirements) for spec in specs}) == 52


def test_nothing_that_pip_takes_for_an_option_or_an_address_is_in_an_environment(read: Read) -> None:
    lines = {line for bug in read[0] for line in (*bug.environment.requirements, *bug.environment.extras)}
    assert all(re.match(r"[a-z0-9][a-z0-9-]*(?:[=<>!~;]|$)", line) for line in lines)


def test_the_project_itself_is_in_no_environment(read: Read) -> None:
    for bug in read[0]:
        names = {re.split(r"[=<>!~;]", line)[0] for line in (*bug.environment.requirements, *bug.environment.extras)}
        assert not names & {bug.project.lower(), "pip", "setuptools", "wheel", "pkg-resources", "unittest", "pywin32"}


def test_additions_reach_their_bugs(read: Read) -> None:
    bugs = by_id(read)
    assert bugs["PySnooper-2"].environment.extras == ("future==0.18.2", "python-toolbox", "six")
    assert bugs["PySnooper-3"].environment.extras == ("decorator", "future==0.18.2", "python-toolbox", "six")
    assert {"future==0.18.2", "pytest-cov", "pytest-mock"} == set(bugs["cookiecutter-3"].environment.extras)
    assert bugs["luigi-17"].environment.extras == ("sqlalchemy",)
    assert bugs["luigi-18"].environment.extras == ()
    repositories = {bug.repository for bug in read[0]}
    assert {each.repository for each in ADDITIONS} <= repositories
    assert GENERATED.keys() <= {repository.lower() for repository in repositories}


def test_setup_asks_for_files_and_for_compiling(read: Read) -> None:
    assert Counter((bug.project, bug.touched) for bug in read[0] if bug.touched) == {
        ("black", ("tests/__init__.py",)): 23
    }
    assert Counter(bug.project for bug in read[0] if bug.compiles) == {"pandas": 169, "spacy": 10}


def test_repositories_are_owner_and_name(read: Read) -> None:
    named = {bug.project: bug.repository for bug in read[0]}
    assert len(named) == 17
    assert named["httpie"] == "jakubroztocil/httpie"
    assert all(re.fullmatch(r"[\w-]+/[\w-]+", repository) for repository in named.values())


def test_pythonpath_is_the_root_and_the_source_roots(read: Read) -> None:
    odd = {bug.project: bug.pythonpath for bug in read[0] if bug.pythonpath != (".",)}
    assert odd == {"ansible": (".", "lib", "test/lib", "test"), "matplotlib": (".", "lib")}


def test_run_lines_are_read_whatever_the_runner(read: Read, upstream: Files) -> None:
    runners: Counter[str] = Counter()
    for bug in read[0]:
        text = upstream[f"projects/{bug.project}/bugs/{bug.number}/run_test.sh"].decode()
        runners.update(line.runner for line in read_run_lines(text, bug.test_files).lines)
    assert runners == {
        "pytest": 444,
        "python -m unittest": 142,
        "py.test": 10,
        "python3 -m pytest": 10,
        "tox": 5,
    }
    assert sum(len(bug.test_args) for bug in read[0]) == 612
    assert max(len(bug.test_args) for bug in read[0]) == 8


def test_arguments_are_ids_in_the_listed_files(read: Read) -> None:
    for bug in read[0]:
        assert all(arg.split("::")[0] in bug.test_files and " " not in arg for arg in bug.test_args), bug.id
    bugs = by_id(read)
    assert bugs["tornado-3"].test_args == ("tornado/test/httpclient_test.py::SyncHTTPClientSubprocessTest",)
    assert bugs["keras-14"].test_args[0].endswith("[y_pred1-y_true1]")
    assert bugs["matplotlib-8"].test_args == (
        "lib/matplotlib/tests/test_axes.py::test_unautoscaley",
        "lib/matplotlib/tests/test_axes.py::test_unautoscalex",
    )
    assert bugs["scrapy-26"].test_args == ("tests/test_settings/__init__.py::BaseSettingsTest::test_getcomposite",)


BESIDE_THE_SOURCES = {
    "matplotlib-15": (
        "examples/userdemo/colormap_normalizations.py",
        "examples/userdemo/colormap_normalizations_symlognorm.py",
        "tutorials/colors/colormapnorms.py",
    ),
    "spacy-7": ("examples/information_extraction/entity_relations.py",),
    "tornado-15": ("setup.py",),
}


def test_what_a_fix_touches_is_editable_and_what_tests_need_is_not(read: Read) -> None:
    left_out: dict[str, tuple[str, ...]] = {}
    with_tests = 0
    for bug in read[0]:
        paths = patch_paths(bug.patch)
        editable = {path for path in paths if matches(path, editable_patterns(bug.project))}
        editable -= {path for path in paths if matches(path, PROTECTED)}
        assert editable, f"{bug.id} could not be repaired"
        others = tuple(path for path in paths if path not in editable and not is_test_path(path))
        left_out |= {bug.id: others} if others else {}
        with_tests += any(map(is_test_path, paths))
    assert left_out == BESIDE_THE_SOURCES
    assert with_tests == 36


def test_protected_patterns_and_the_predicates_agree(read: Read) -> None:
    paths = {path for bug in read[0] for path in (*patch_paths(bug.patch), *bug.test_files, *bug.touched)}
    assert len(paths) > 600
    for path in paths:
        assert matches(path, PROTECTED) == (is_test_path(path) or is_configuration(path)), path


@pytest.mark.parametrize(
    "path",
    [
        *("test_a/__init__.py", "package/test_a/__init__.py", "package/a_test/__init__.py", "conftest/__init__.py"),
        *("sitecustomize/__init__.py", "package/testing.py", "package/tests/helper.py", "tests.py"),
    ],
)
def test_what_would_stand_in_for_a_test_may_not_be_added_where_all_python_is_editable(path: str) -> None:
    assert matches(path, editable_patterns("of-a-user"))
    assert matches(path, PROTECTED)


@pytest.mark.parametrize(
    "path",
    ["ChangeLog", "changelogs/fragments/1-fix.yml", "newsfragments/1.bugfix", "docs/Makefile.md", "lib/parse.pyi"],
)
def test_a_text_that_may_tell_of_the_fix_is_documentation_in_any_spelling(path: str) -> None:
    assert is_documentation(path)
    assert not is_documentation(f"package/{path.removesuffix('i')}")


def test_every_test_file_is_a_test_path(read: Read) -> None:
    assert [path for bug in read[0] for path in bug.test_files if not is_test_path(path)] == []
    assert EDITABLE.keys() == PROJECTS.keys()
    assert editable_patterns("of-a-user") == ("**/*.py",)


INFO = f'''python_version="3.7.4"
buggy_commit_id="{"a" * 40}"
fixed_commit_id="{"b" * 40}"
test_file="tests/test_a.py"
'''
PATCH = "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
OF_A_USER = {
    "project.info": 'github_url="https://github.com/some-one/Thing.git/"\nstatus="OK"\n',
    "bug.info": INFO,
    "bug_patch.txt": PATCH,
    "requirements.txt": "six==1.15.0\n",
    "run_test.sh": "pytest tests/test_a.py::test_b\n",
}


def directory(**changed: str | bytes | None) -> dict[str, bytes]:
    """A bug directory of a user's own set, with some of its files changed (`bug_info` for bug.info) or taken away."""
    names = {name.replace(".", "_"): name for name in (*OF_A_USER, "setup.sh")}
    files = OF_A_USER | {names[key]: content for key, content in changed.items()}
    return {
        f"projects/thing/{'' if name == 'project.info' else 'bugs/1/'}{name}": content.encode()
        if isinstance(content, str)
        else content
        for name, content in files.items()
        if content is not None
    }


def only_bug(files: Files) -> Bug:
    bugs, rejected = read_bugs(files)
    assert rejected == {}
    return bugs[0]


def test_a_set_of_a_user_is_read_without_any_table() -> None:
    bug = only_bug(directory())
    assert (bug.id, bug.repository, bug.environment.python) == ("thing-1", "some-one/Thing", "3.7")
    assert bug.test_args == ("tests/test_a.py::test_b",)
    assert bug.irregular == ("project.info: an address that ends in .git", "project.info: an address that ends in /")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bug_info": None}, "there is no bug.info"),
        ({"bug_info": b"\x00\x01\xff"}, "bug.info is not text"),
        ({"bug_info": INFO + "rm -rf /\n"}, "bug.info has a line that is not name=\"value\": 'rm -rf /'"),
        (
            {"bug_info": INFO.replace("tests/test_a.py", "/etc/passwd")},
            "bug.info has an unsafe test_file: '/etc/passwd'",
        ),
        ({"bug_info": INFO.replace("tests/test_a", "../a")}, "bug.info has an unsafe test_file: '../a.py'"),
        ({"bug_info": INFO.replace("tests/test_a.py", "")}, "bug.info has no test_file"),
        ({"bug_info": INFO.replace("a" * 40, "--upload-pack")}, "buggy_commit_id that is no commit"),
        ({"bug_info": INFO.replace("b" * 40, "main")}, "fixed_commit_id that is no commit"),
        ({"bug_info": INFO.replace("3.7.4", "2.7")}, "python_version that is none of Python 3"),
        ({"bug_info": INFO + 'python_version="3.8.1"'}, "bug.info gives python_version twice"),
        ({"bug_info": INFO + 'pythonpath="thing/../../x"'}, "unsafe pythonpath"),
        ({"bug_info": INFO + 'pythonpath="thing/a:/x"'}, "unsafe pythonpath"),
        ({"project_info": None}, "there is no project.info"),
        ({"project_info": 'github_url="https://evil.example/x/y"'}, "no repository of GitHub"),
        ({"project_info": 'github_url="https://github.com/a/.."'}, "no repository of GitHub"),
        ({"bug_patch_txt": None}, "there is no bug_patch.txt"),
        ({"bug_patch_txt": "\n"}, "no bug: its patch is empty"),
        ({"bug_patch_txt": "--- a/x\n+++ b/x\n"}, "not a patch in git's form"),
        ({"bug_patch_txt": PATCH.replace("pkg/a.py", "tests/a.py")}, "nothing but tests"),
        ({"bug_patch_txt": PATCH.replace("pkg/a.py", "../a.py")}, "touches an unsafe path: '../a.py'"),
        ({"bug_patch_txt": PATCH.replace("pkg/a.py", ".git/config")}, "touches an unsafe path: '.git/config'"),
        ({"run_test_sh": None}, "there is no run_test.sh"),
        ({"run_test_sh": "\n"}, "run_test.sh has no command"),
        ({"setup_sh": "rm -rf ~\n"}, "setup.sh has a line that is not known: 'rm -rf ~'"),
    ],
)
def test_a_broken_or_hostile_directory_is_rejected_with_the_reason(changed: dict[str, str], reason: str) -> None:
    bugs, rejected = read_bugs(directory(**changed))
    assert bugs == []
    assert list(rejected) == ["thing-1"]
    assert reason in rejected["thing-1"]
    assert "\n" not in rejected["thing-1"]


@pytest.mark.parametrize(
    "name", ["projects/thing/bugs/x/bug.info", "projects/thing/bugs/01/bug.info", "projects/-x/bugs/1/bug.info"]
)
def test_a_directory_of_another_name_is_rejected(name: str) -> None:
    _, rejected = read_bugs({name: INFO.encode()})
    assert list(rejected.values()) == ["the directory's name is no project's name and number"]


def test_stray_files_are_not_wanted() -> None:
    assert not is_wanted("projects/pandas/bugs/~$Bugs info.xlsx")
    assert not is_wanted("projects/tqdm/verify.sh")
    assert not is_wanted("framework/bin/bugsinpy-test")


def test_a_setting_said_twice_the_same_is_read() -> None:
    assert "bug.info: a name twice" in only_bug(directory(bug_info=INFO + 'PYTHON_VERSION="3.7.4"')).irregular


def test_pythonpath_is_read_below_the_projects_directory() -> None:
    given = INFO + 'PYTHONPATH = "thing/src;thing/build/lib/;thing"'
    assert only_bug(directory(bug_info=given)).pythonpath == (".", "src")


@given(
    st.sampled_from(["bug_info", "bug_patch_txt", "requirements_txt", "run_test_sh", "setup_sh", "project_info"]),
    st.binary(),
)
def test_arbitrary_bytes_are_read_or_rejected(name: str, data: bytes) -> None:
    bugs, rejected = read_bugs(directory(**{name: data}))
    assert len(bugs) + len(rejected) == 1
