"""`requirements.txt` and `setup.sh`: what a bug's environment is made of, cleaned so that equal environments are equal
specs. Nothing of it is ever executed.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from sandboxes.python_spec import PythonSpec
from suites.bugsinpy.additions import additions
from suites.bugsinpy.bug import Rejected
from suites.bugsinpy.paths import is_safe_path

WINDOWS_ONLY = frozenset(
    {
        *("pydivert", "pypiwin32", "pyreadline", "pywin32", "pywin32-ctypes", "pywinpty"),
        *("win-inet-pton", "win-unicode-console", "wincertstore", "windows-curses", "wmi"),
    }
)
INSTALLERS = frozenset({"pip", "setuptools", "wheel", "distribute"})
"""The recipe of environments brings its own."""
BUILT_IN = frozenset({"unittest"})
"""Of the standard library; what PyPI has under the name is something else."""
ALIASES = {"ansible/ansible": ("ansible-base",)}
"""Names under which a repository is installed, beside its own."""

OWN = "requirements: the project itself"
_SPECIFIER = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+"
_REQUIREMENT = re.compile(
    rf"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[A-Za-z0-9._,\s-]*\])?"
    rf"\s*(?P<specifiers>{_SPECIFIER}(?:\s*,\s*{_SPECIFIER})*)?\s*(?:;(?P<marker>[A-Za-z0-9_.\"'<>=!() \t-]+))?"
)
_PIN = re.compile(r"==[^=*,]+")
_AT = re.compile(r"([A-Za-z0-9._-]+)\s*@")
_EGG = re.compile(r"#egg=([A-Za-z0-9._-]+)")
_PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?")
_QUIET_FLAGS = frozenset({"-q", "-v", "-U", "--quiet", "--upgrade", "--user", "--no-cache-dir"})


@dataclass(frozen=True)
class Requirement:
    """One line of pip's format, in one spelling."""

    name: str
    """By PEP 503: lower case, one hyphen for each run of `-`, `_` and `.`."""
    specifiers: str
    marker: str
    line: str

    @property
    def is_pin(self) -> bool:
        """Exactly one version will do."""
        return bool(_PIN.fullmatch(self.specifiers))


@dataclass
class SetUp:
    """What `setup.sh` asks for."""

    extras: list[Requirement] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    compiles: bool = False
    irregular: list[str] = field(default_factory=list)


def decoded(data: bytes, name: str) -> tuple[str, list[str]]:
    """The text of a file, by its byte order mark or as UTF-8, and what is irregular about it. Raises Rejected."""
    encodings = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((each for mark, each in encodings.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise Rejected(f"{name} is not text") from None
    if "\0" in text:
        raise Rejected(f"{name} is not text")
    marked = {"utf-16": [f"{name}: UTF-16"], "utf-8-sig": [f"{name}: byte order mark"]}.get(encoding, [])
    return text, marked + ([f"{name}: CRLF"] if "\r\n" in text else [])


def normalised(name: str) -> str:
    """A distribution's name by PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def own_names(project: str, repository: str) -> frozenset[str]:
    """The normalised names under which the project itself would be installed."""
    names = (project, repository.rpartition("/")[2], *ALIASES.get(repository.lower(), ()))
    return frozenset(map(normalised, names))


@lru_cache(maxsize=4096)
def parsed(line: str, where: str) -> Requirement:
    """A requirement in one spelling. Raises Rejected for what is none: an option, an address, a path."""
    match = _REQUIREMENT.fullmatch(line.strip())
    if match is None:
        raise Rejected(f"{where} has a line that is no requirement by name: {line[:80]!r}")
    name = normalised(match["name"])
    specifiers = ",".join(sorted(re.sub(r"\s", "", match["specifiers"] or "").split(",")))
    extras = re.sub(r"\s", "", match["extras"] or "").lower()
    marker = f"; {match['marker'].strip()}" if match["marker"] else ""
    return Requirement(name, specifiers, marker, f"{name}{extras}{specifiers}{marker}")


def read_requirements(data: bytes | None, own: frozenset[str]) -> tuple[list[Requirement], list[str]]:
    """The requirements that are to be installed, sorted, and what was irregular. Raises Rejected."""
    if data is None:
        return [], ["requirements.txt: missing"]
    text, irregular = decoded(data, "requirements.txt")
    if not text.strip():
        return [], ["requirements.txt: empty"]
    kept: dict[tuple[str, str], Requirement] = {}
    for line in text.splitlines():
        phrase = _keep(re.sub(r"(^|\s)#.*", "", line).strip(), own, kept)
        irregular += [phrase] if phrase else []
    return sorted(kept.values(), key=lambda each: each.line), list(dict.fromkeys(irregular))


def _keep(line: str, own: frozenset[str], kept: dict[tuple[str, str], Requirement]) -> str:
    """Takes a line up, or drops it: the phrase that says why, where there is something to say."""
    if not line:
        return ""
    if _is_own_address(line, own):
        return f"{OWN}, by address"
    requirement = parsed(line, "requirements.txt")
    dropped = _dropped(requirement.name, own)
    if dropped:
        return f"requirements: {dropped}"
    key = (requirement.name, requirement.marker)
    twice = kept.get(key, requirement) != requirement
    kept[key] = requirement
    return "requirements: a package twice, the last counts" if twice else ""


def _is_own_address(line: str, own: frozenset[str]) -> bool:
    """`-e .`, or an address that says it is of the project."""
    words = line.split()
    if words[0] in ("-e", "--editable"):
        words = words[1:]
    named = _EGG.search(line) or _AT.match(line)
    if named:
        return normalised(named[1]) in own
    return len(words) == 1 and re.fullmatch(r"\./?(?:\[[\w,. -]*\])?", words[0]) is not None


def _dropped(name: str, own: frozenset[str]) -> str:
    reasons = {
        "the project itself, by version": name in own,
        "pkg-resources": name == "pkg-resources",
        "Windows only": name in WINDOWS_ONLY,
        "pip, setuptools or wheel": name in INSTALLERS,
        "of the standard library": name in BUILT_IN,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def read_setup(text: str, own: frozenset[str]) -> SetUp:
    """What a `setup.sh` asks for. Raises Rejected, with the line, for what is not known."""
    found = SetUp()
    for line in re.split(r"[\r\n;]", text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise Rejected(f"setup.sh has a line that no shell reads ({error}): {line[:80]!r}") from None
        if words:
            _take(words, line, own, found)
    found.irregular = list(dict.fromkeys(found.irregular))
    return found


def _take(words: list[str], line: str, own: frozenset[str], found: SetUp) -> None:
    arguments = _pip_arguments(words)
    if arguments:
        _install(arguments, line, own, found)
    elif words[0] == "touch" and len(words) > 1 and all(map(is_safe_path, words[1:])):
        found.touched += words[1:]
    elif _PYTHON.fullmatch(words[0]) and words[1:2] == ["setup.py"] and len(words) > 2:
        _build(words[2:], line, found)
    else:
        raise Rejected(f"setup.sh has a line that is not known: {line[:80]!r}")


def _pip_arguments(words: list[str]) -> list[str]:
    """What follows `pip install`, however pip is called; empty for another command."""
    if _PYTHON.fullmatch(words[0]) and words[1:2] == ["-mpip"]:
        words = ["pip", *words[2:]]
    if _PYTHON.fullmatch(words[0]) and words[1:3] == ["-m", "pip"]:
        words = words[2:]
    return words[2:] if words[0] in ("pip", "pip3") and words[1:2] == ["install"] else []


def _install(arguments: list[str], line: str, own: frozenset[str], found: SetUp) -> None:
    given = [word for word in arguments if word not in _QUIET_FLAGS]
    if given and (given[0] in ("-e", "-ve", "--editable") or given[0].startswith(".")):
        if not _is_own_address(" ".join(given).replace("-ve ", "-e "), own):
            raise Rejected(f"setup.sh installs something by its address: {line[:80]!r}")
        found.irregular.append("setup.sh: the project itself, by address")
    elif given == ["-r", "requirements.txt"]:
        found.irregular.append("setup.sh: the project's own requirements.txt")
    else:
        _install_by_name(given, own, found)


def _install_by_name(given: Iterable[str], own: frozenset[str], found: SetUp) -> None:
    for word in given:
        requirement = parsed(word, "setup.sh")
        dropped = _dropped(requirement.name, own)
        if dropped:
            found.irregular.append(f"setup.sh: {dropped}")
        else:
            found.extras.append(requirement)


def _build(words: list[str], line: str, found: SetUp) -> None:
    if words[0] == "build_ext" and "--inplace" in words:
        found.compiles = True
    elif words[0] not in ("install", "develop", "build") or len(words) > 1:
        raise Rejected(f"setup.sh has a line that is not known: {line[:80]!r}")


def environment(
    python: str, requirements: list[Requirement], setup: SetUp, repository: str, number: int
) -> tuple[PythonSpec, list[str]]:
    """The spec of a bug's environment, and what was irregular.

    A file of pins is what `pip freeze` wrote: installed as it is. Where a line leaves the version open the file was
    written by hand, and what its packages need has to come with them. What set-up or additions ask for counts only
    where the file does not pin it already, as pip would find it installed.
    """
    frozen = all(each.is_pin for each in requirements)
    pinned = requirements if frozen else []
    versions = {each.name: each.specifiers for each in pinned}
    added = [parsed(line, "additions") for line in additions(repository, number)]
    wished = [*([] if frozen else requirements), *setup.extras, *added]
    irregular = {
        "requirements: ranges, not pins": not frozen,
        "setup.sh: another version than requirements.txt has, which counts": any(
            each.specifiers not in ("", versions.get(each.name, each.specifiers)) for each in setup.extras
        ),
    }
    minor = ".".join(python.split(".")[:2])
    spec = PythonSpec(minor, tuple(sorted(each.line for each in pinned)), _extras(wished, versions))
    return spec, [phrase for phrase, holds in irregular.items() if holds]


def _extras(wished: list[Requirement], pinned: Collection[str]) -> tuple[str, ...]:
    """The lines, sorted, without what is pinned, and without bare names of which another line says more."""
    said_more = {each.name for each in wished if each.specifiers}
    kept = {each.line for each in wished if each.name not in pinned and (each.specifiers or each.name not in said_more)}
    return tuple(sorted(kept))
