"""The paths of a subject repository by what they are: tests, configuration, documentation, editable sources; and the
paths that a patch touches. Patterns are those of tools.globs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from suites.bugsinpy.bug import Rejected
from tools.globs import matches

TESTS = ("**/test/**", "**/tests/**", "**/test_*.py", "**/*_test.py", "**/tests.py", "**/conftest.py")
CONFIGURATION = (
    "**/setup.py",
    "**/setup.cfg",
    "**/tox.ini",
    "**/pytest.ini",
    "**/.pytest.ini",
    "**/pyproject.toml",
    "**/MANIFEST.in",
    "**/*requirements*.txt",
    "**/*.pth",
    "**/sitecustomize.py",
    "**/usercustomize.py",
    "noxfile.py",
    "Makefile",
    "appveyor.yml",
    ".*",
    ".*/**",
)
DOCUMENTATION = (
    *("doc/**", "docs/**", "*.md", "*.rst", "*.txt", "change*", "history*", "news*", "readme*", "authors*"),
    *("changes/**", "changelogs/**", "changelog.d/**", "newsfragments/**"),
    "**/*.pyi",
)
"""In small letters. Stubs are among them: upstream's patches leave them out, and nothing runs them."""
SUPPORT = (
    "**/testing.py",
    *("**/test_*/**", "**/*_test/**", "**/conftest/**", "**/sitecustomize/**", "**/usercustomize/**"),
)
"""What tests are built on, and packages that Python would import in place of the module of that name beside them."""
PROTECTED = TESTS + CONFIGURATION + SUPPORT
"""What no edit may touch, whatever the editable patterns say."""
EDITABLE = {
    "PySnooper": ("pysnooper/**",),
    "ansible": ("lib/ansible/**",),
    "black": ("black.py", "blackd.py", "blib2to3/**", "src/**"),
    "cookiecutter": ("cookiecutter/**",),
    "fastapi": ("fastapi/**",),
    "httpie": ("httpie/**",),
    "keras": ("keras/**", "docs/*.py"),
    "luigi": ("luigi/**",),
    "matplotlib": ("lib/matplotlib/**", "lib/mpl_toolkits/**", "lib/pylab.py"),
    "pandas": ("pandas/**",),
    "sanic": ("sanic/**",),
    "scrapy": ("scrapy/**",),
    "spacy": ("spacy/**", "bin/**"),
    "thefuck": ("thefuck/**",),
    "tornado": ("tornado/**",),
    "tqdm": ("tqdm/**",),
    "youtube-dl": ("youtube_dl/**",),
}
"""The sources by project; keras and spacy have bugs whose whole patch is in a tool beside the package."""


def is_test_path(path: str) -> bool:
    """A test, a fixture or something that tests import."""
    return matches(path, TESTS)


def is_configuration(path: str) -> bool:
    """Configures the build, the test run, Python or the project's services."""
    return matches(path, CONFIGURATION)


def is_documentation(path: str) -> bool:
    """Written for readers: may tell of later versions, and is no part of a repair."""
    return matches(path.lower(), DOCUMENTATION) and not is_configuration(path)


def editable_patterns(project: str) -> tuple[str, ...]:
    """The files that a repair may change, before PROTECTED is taken away; for an unknown project all of its Python."""
    return EDITABLE.get(project, ("**/*.py",))


def plain_path(path: str) -> str:
    """The path without doubled slashes and a leading `./`; an absolute one stays one."""
    return re.sub(r"(?<=[^/])/+", "/", path).removeprefix("./")


def is_safe_path(path: str) -> bool:
    """Relative, inside the tree, printable, in normal form, no option of a command, and nothing of git's own."""
    parts = path.split("/")
    odd = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    return not odd and path.isprintable() and not path.startswith("-") and "\\" not in path


_QUOTED = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
_ESCAPES = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))
_NAMING = (b"--- ", b"+++ ", b"rename from ", b"rename to ", b"copy from ", b"copy to ")


def patch_paths(patch: bytes) -> tuple[str, ...]:
    """The paths that a patch in git's form touches, in its order and each once; both names of a rename.

    Raises Rejected for a path that is not text or leads out of the tree, and for a header that names none.
    """
    found: dict[str, None] = {}
    for header in _headers(patch):
        named = list(_named(header)) or [_unnamed(header[0])]
        for raw in named:
            found[_checked(raw)] = None
    return tuple(found)


def _headers(patch: bytes) -> Iterator[list[bytes]]:
    """The lines from each `diff --git` up to the first hunk: what looks like a header inside a hunk is content."""
    header: list[bytes] = []
    for line in patch.split(b"\n"):
        if line.startswith(b"diff --git "):
            if header:
                yield header
            header = [line.rstrip(b"\r")]
        elif line.startswith((b"@@", b"GIT binary patch")):
            if header:
                yield header
            header = []
        elif header:
            header.append(line.rstrip(b"\r"))
    if header:
        yield header


def _named(header: list[bytes]) -> Iterator[bytes]:
    for line in header[1:]:
        prefix = next((each for each in _NAMING if line.startswith(each)), None)
        if prefix is None:
            continue
        name = _unquoted(line[len(prefix) :].rstrip(b"\t"))
        if prefix in _NAMING[:2]:
            if name == b"/dev/null":
                continue
            name = _without_side(name)
        yield name


def _unnamed(line: bytes) -> bytes:
    """The name in `diff --git a/x b/x`, where nothing else names it (a mode, or an empty or binary file): twice the
    same, so that blanks in it do no harm.
    """
    names = line[len(b"diff --git ") :]
    half = len(names) // 2
    first, second = _unquoted(names[:half]), _unquoted(names[half + 1 :])
    if first[2:] != second[2:]:
        raise Rejected(f"bug_patch.txt has a header that names no file: {line[:80]!r}")
    return _without_side(first)


def _without_side(name: bytes) -> bytes:
    if name[:2] not in (b"a/", b"b/"):
        raise Rejected(f"bug_patch.txt names {name[:80]!r} without a/ or b/")
    return name[2:]


def _unquoted(name: bytes) -> bytes:
    if not (len(name) >= 2 and name.startswith(b'"') and name.endswith(b'"')):
        return name
    return _QUOTED.sub(_unescaped, name[1:-1])


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 255 if len(code) == 3 else _ESCAPES[code[0]]])


def _checked(raw: bytes) -> str:
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise Rejected(f"bug_patch.txt touches a path that is not UTF-8: {raw[:80]!r}") from None
    if not is_safe_path(path):
        raise Rejected(f"bug_patch.txt touches an unsafe path: {path[:80]!r}")
    return path
