"""The bug directories of BugsInPy, or of anybody's set in the same format: read, or rejected with the reason.

`projects/<project>/project.info` and `projects/<project>/bugs/<number>/…`, see https://github.com/soarsmu/BugsInPy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from suites.bugsinpy.bug import Bug, Rejected
from suites.bugsinpy.paths import is_safe_path, is_test_path, patch_paths, plain_path
from suites.bugsinpy.requirements import SetUp, decoded, environment, own_names, read_requirements, read_setup
from suites.bugsinpy.run_lines import read_run_lines

UPSTREAM = "soarsmu/BugsInPy"
COMMIT = "11c5f1eea954a42132cfd06bf257766a7963e0fd"

SOURCE_ROOTS = {"ansible/ansible": ("lib", "test/lib", "test"), "matplotlib/matplotlib": ("lib",)}
"""Directories that hold packages beside the root of the tree, by repository."""

_WANTED = re.compile(
    r"projects/(?P<project>[^/]+)/(?:project\.info|bugs/(?P<number>[^/]+)/"
    r"(?P<file>bug\.info|bug_patch\.txt|requirements\.txt|run_test\.sh|setup\.sh))"
)
_SETTING = re.compile(r'\s*([A-Za-z_]\w*)(\s*=\s*)"([^"]*)"(.*)')
_ADDRESS = re.compile(r"https?://(?:www\.)?github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9_.-]+?)(\.git)?(/)?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_COMMIT_ID = re.compile(r"[0-9a-fA-F]{7,40}")
_PYTHON = re.compile(r"3\.\d{1,2}(?:\.\d{1,2})?")


@dataclass
class _Settings:
    """The `name="value"` lines of a file."""

    name: str
    values: dict[str, str] = field(default_factory=dict)
    irregular: list[str] = field(default_factory=list)

    def get(self, key: str) -> str:
        if not self.values.get(key):
            raise Rejected(f"{self.name} has no {key}")
        return self.values[key]


def is_wanted(path: str) -> bool:
    """Is it a file that `read_bugs` reads?"""
    return _WANTED.fullmatch(path) is not None


def read_bugs(files: Mapping[str, bytes]) -> tuple[list[Bug], dict[str, str]]:
    """All bugs by project and number, and the reason, in one line, by the id of each directory that was rejected."""
    found: defaultdict[tuple[str, str], dict[str, bytes]] = defaultdict(dict)
    projects: dict[str, bytes] = {}
    for path, data in files.items():
        match = _WANTED.fullmatch(path)
        if match and match["number"] is None:
            projects[match["project"]] = data
        elif match:
            found[match["project"], match["number"]][match["file"]] = data
    bugs, rejected = [], {}
    for project, number in sorted(found, key=_order):
        try:
            bugs.append(_bug(project, number, found[project, number], projects.get(project)))
        except Rejected as error:
            rejected[ascii(f"{project}-{number}")[1:-1]] = str(error)
    return bugs, rejected


def _order(key: tuple[str, str]) -> tuple[str, str, int, str]:
    project, number = key
    return project.lower(), project, len(number), number


def _bug(project: str, number: str, files: Mapping[str, bytes], project_info: bytes | None) -> Bug:
    if not _NAME.fullmatch(project) or not _NUMBER.fullmatch(number):
        raise Rejected("the directory's name is no project's name and number")
    of_project = _settings(project_info, "project.info")
    repository = _repository(of_project)
    info = _settings(files.get("bug.info"), "bug.info")
    test_files = _test_files(info)
    run_test, of_file = _text(files, "run_test.sh")
    run = read_run_lines(run_test, test_files)
    own = own_names(project, repository)
    setup = _setup(files, own)
    requirements, of_requirements = read_requirements(files.get("requirements.txt"), own)
    spec, of_spec = environment(_python(info), requirements, setup, repository, int(number))
    bug = Bug(
        project=project,
        number=int(number),
        repository=repository,
        python=_python(info),
        buggy_commit=_commit(info, "buggy_commit_id"),
        fixed_commit=_commit(info, "fixed_commit_id"),
        test_files=test_files,
        test_args=run.test_args,
        pythonpath=_pythonpath(repository, of_project, info),
        touched=tuple(setup.touched),
        patch=_patch(files),
        environment=spec,
        compiles=setup.compiles,
    )
    irregular = [*of_project.irregular, *info.irregular, *of_file, *run.irregular, *of_requirements, *setup.irregular]
    return replace(bug, irregular=tuple(dict.fromkeys([*irregular, *of_spec])))


def _text(files: Mapping[str, bytes], name: str) -> tuple[str, list[str]]:
    if name not in files:
        raise Rejected(f"there is no {name}")
    return decoded(files[name], name)


def _setup(files: Mapping[str, bytes], own: frozenset[str]) -> SetUp:
    if "setup.sh" not in files:
        return SetUp()
    text, irregular = _text(files, "setup.sh")
    setup = read_setup(text, own)
    setup.irregular = irregular + setup.irregular
    return setup


def _settings(data: bytes | None, name: str) -> _Settings:
    text, irregular = _text({} if data is None else {name: data}, name)
    settings = _Settings(name, irregular=irregular)
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            _take_setting(line, settings)
    return settings


def _take_setting(line: str, settings: _Settings) -> None:
    match = _SETTING.fullmatch(line)
    if match is None:
        raise Rejected(f'{settings.name} has a line that is not name="value": {line[:80]!r}')
    key = match[1].lower()
    if settings.values.get(key, match[3]) != match[3]:
        raise Rejected(f"{settings.name} gives {key} twice")
    odd = {
        "a name twice": key in settings.values,
        "blanks around =": match[2] != "=",
        "blanks after a value": match[4] != "" and not match[4].strip(),
        "text after a value": bool(match[4].strip()),
        "a name in capitals": match[1] != key,
    }
    settings.values[key] = match[3]
    settings.irregular += [f"{settings.name}: {phrase}" for phrase, holds in odd.items() if holds]


def _repository(of_project: _Settings) -> str:
    address = of_project.get("github_url").strip()
    match = _ADDRESS.fullmatch(address)
    if match is None or set(match[2]) <= {"."} or match[2].startswith("-"):
        raise Rejected(f"project.info has an address that is no repository of GitHub: {address[:80]!r}")
    if match[3]:
        of_project.irregular.append("project.info: an address that ends in .git")
    if match[4]:
        of_project.irregular.append("project.info: an address that ends in /")
    return f"{match[1]}/{match[2]}"


def _python(info: _Settings) -> str:
    version = info.get("python_version").strip()
    if not _PYTHON.fullmatch(version):
        raise Rejected(f"bug.info has a python_version that is none of Python 3: {version[:80]!r}")
    return version


def _commit(info: _Settings, key: str) -> str:
    commit = info.get(key).strip()
    if not _COMMIT_ID.fullmatch(commit):
        raise Rejected(f"bug.info has a {key} that is no commit: {commit[:80]!r}")
    if len(commit) < 40:
        info.irregular.append("bug.info: an abbreviated commit")
    return commit.lower()


def _test_files(info: _Settings) -> tuple[str, ...]:
    given = [each.strip() for each in info.get("test_file").split(";") if each.strip()]
    files = tuple(dict.fromkeys(map(plain_path, given)))
    unsafe = [path for path in files if not is_safe_path(path)]
    if unsafe or not files:
        raise Rejected(f"bug.info has an unsafe test_file: {' '.join(unsafe)[:80]!r}")
    if len(files) > 1:
        info.irregular.append("bug.info: several test files")
    if any(path != plain_path(path) for path in given):
        info.irregular.append("bug.info: a path that is not in normal form")
    return files


def _pythonpath(repository: str, of_project: _Settings, info: _Settings) -> tuple[str, ...]:
    """The root, the project's source roots, and what the files give; there the first part stands for the root.

    `build/lib` is left out: it would hold what an installation copied from the tree.
    """
    found = [".", *SOURCE_ROOTS.get(repository.lower(), ())]
    for settings in (of_project, info):
        given = [each for each in settings.values.get("pythonpath", "").replace(" ", "").split(";") if each]
        if given:
            settings.irregular.append(f"{settings.name}: pythonpath")
        root = given[0].split("/")[0] if given else ""
        for path in given:
            inner = path.rstrip("/").removeprefix(root).lstrip("/") or "."
            if path.startswith("/") or ":" in path or (inner != "." and not is_safe_path(inner)):
                raise Rejected(f"{settings.name} has an unsafe pythonpath: {path[:80]!r}")
            found.append(inner)
    return tuple(dict.fromkeys(path for path in found if path.split("/")[:2] != ["build", "lib"]))


def _patch(files: Mapping[str, bytes]) -> bytes:
    if "bug_patch.txt" not in files:
        raise Rejected("there is no bug_patch.txt")
    patch = files["bug_patch.txt"]
    if not patch.strip():
        raise Rejected("no bug: its patch is empty")
    paths = patch_paths(patch)
    if not paths:
        raise Rejected("bug_patch.txt is not a patch in git's form")
    if all(map(is_test_path, paths)):
        raise Rejected("no bug: its patch touches nothing but tests")
    return patch
