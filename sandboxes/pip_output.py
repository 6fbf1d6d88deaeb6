"""What pip 21.3 says when an installation fails, read into one fault."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

WHY_CHARACTERS = 120


class FaultKind(StrEnum):
    NETWORK = "network"
    """The index, or a file on it, cannot be reached: says nothing about the requirement."""
    DISK = "disk"
    """No space is left; the subject is the path, where pip says it."""
    MISSING = "missing"
    """No such package, or no version of it that satisfies the requirement on this Python."""
    UNBUILDABLE = "unbuildable"
    """Its metadata or its wheel cannot be made."""
    REFUSED = "refused"
    """A wrong hash, a URL without an answer, a line that is no requirement."""
    CONFLICT = "conflict"
    OTHER = "other"


@dataclass(frozen=True)
class PipFault:
    """`subject` is the requirement or the name as pip writes it, `versions` those that it found."""

    kind: FaultKind
    subject: str = ""
    why: str = ""
    versions: tuple[str, ...] = ()
    isolated: bool = False
    """The build had an environment of its own, with the newest build tools."""


_NETWORK = re.compile(
    r"^(?:ERROR: )?(Could not fetch URL .*(?:connection error|ssl certificate|timed out).*"
    r"|.*(?:Max retries exceeded|ReadTimeoutError|IncompleteRead|ConnectionResetError|Connection broken).*"
    r"|.*(?:NewConnectionError|ProxyError|ConnectTimeoutError).*|.*not a trusted or secure host.*"
    r"|.*HTTP error (?:401|403|407|429|5\d\d) .*)$",
    re.M,
)
_URL_FAILED = re.compile(r"ERROR: Could not install requirement (\S+) .*?because of (HTTP error \d+)")
_VCS_FAILED = re.compile(r"WARNING: Discarding ((?:git|hg|svn|bzr)\+\S+?)\. ")
_NO_VCS = re.compile(r"Cannot find command '(git|hg|svn|bzr)'")
_HASH = re.compile(r"DO NOT MATCH THE HASHES.*?\n\s+(\S+) from ", re.S)
_INVALID = re.compile(r"ERROR: Invalid requirement: '(.+?)'")
_NOT_FOUND = re.compile(
    r"ERROR: Could not find a version that satisfies the requirement (.+?) \(from versions: (.*?)\)"
)
_OTHER_PYTHON = re.compile(r"ERROR: Package '([^']+)' requires a different Python: (.+)")
_BUILD_FAILED = (
    re.compile(r"Running setup\.py install for (\S+): finished with status 'error'"),
    re.compile(r"ERROR: Could not build wheels for ([^\s,]+)"),
)
_CONFLICT = re.compile(r"ERROR: Cannot install (.+?) because these package versions have conflicting dependencies")
_BLOCK = re.compile(r"Complete output \(\d+ lines\):\n(.*?)\n\s*-{20,}", re.S)
_CAUSE = re.compile(r"fatal error:|\w*(?:Error|Exception|Exit): |not found|[Nn]o module named|^\s*error: ")
_URL = re.compile(r"[\w+]+://\S+")
_ISOLATED = re.compile(
    r"\(pyproject\.toml\): finished with status 'error'|Installing build dependencies: finished with status 'error'"
)


def fault_of(output: str) -> PipFault:
    """The fault for which pip gave up; the order of the questions is that of how much each explains."""
    readers = (_disk, _refused, _network, _not_found, _unbuildable, _conflict)
    found = next((fault for read in readers if (fault := read(output))), None)
    return found or PipFault(FaultKind.OTHER, why=in_a_few_words(_last_error(output)))


def _disk(output: str) -> PipFault | None:
    found = re.search(r"No space left on device(?:: '([^']*)')?", output)
    return PipFault(FaultKind.DISK, found[1] or "") if found else None


def _refused(output: str) -> PipFault | None:
    for pattern, why in (
        (_HASH, "its hash is another"),
        (_INVALID, "no requirement"),
        (_VCS_FAILED, "cannot be cloned"),
    ):
        if found := pattern.search(output):
            return PipFault(FaultKind.REFUSED, found[1], why)
    if found := _URL_FAILED.search(output):
        answered_no = found[2][-3:] in ("404", "410")
        return PipFault(FaultKind.REFUSED, found[1], found[2]) if answered_no else None
    if found := _NO_VCS.search(output):
        return PipFault(FaultKind.REFUSED, f"{found[1]}+", f"{found[1]} is not in the image")
    return None


def _network(output: str) -> PipFault | None:
    lines = _NETWORK.findall(output)
    fatal = [line for line in lines if "Retrying (Retry(" not in line]
    if fatal or (lines and "(from versions: none)" in output):
        said = (fatal or lines)[-1]
        return PipFault(FaultKind.NETWORK, why=in_a_few_words(said.rpartition("connection broken by ")[2]))
    return None


def _not_found(output: str) -> PipFault | None:
    if found := _OTHER_PYTHON.search(output):
        return PipFault(FaultKind.MISSING, found[1], in_a_few_words(f"needs Python {found[2]}"))
    matches = _NOT_FOUND.findall(output)
    if not matches:
        return None
    subject, listed = matches[-1]
    subject = re.sub(r" \(from .*", "", subject)
    versions = () if listed == "none" else tuple(listed.split(", "))
    if pin_of(subject) in map(as_version, versions) and "Discarding" in output:
        return PipFault(FaultKind.UNBUILDABLE, subject, _cause(output), versions, bool(_ISOLATED.search(output)))
    why = "no such version for this Python" if versions else "no such package"
    return PipFault(FaultKind.MISSING, subject, why, versions)


def _unbuildable(output: str) -> PipFault | None:
    for pattern in _BUILD_FAILED:
        if found := pattern.search(output):
            return PipFault(FaultKind.UNBUILDABLE, found[1], _cause(output), isolated=bool(_ISOLATED.search(output)))
    return None


def _conflict(output: str) -> PipFault | None:
    found = _CONFLICT.search(output)
    return PipFault(FaultKind.CONFLICT, found[1], "conflicts with what is pinned") if found else None


def _cause(output: str) -> str:
    """The line of the last failed command that says most."""
    blocks = _BLOCK.findall(output)
    lines = [line.strip() for line in blocks[-1].splitlines() if line.strip()] if blocks else []
    telling = [line for line in lines if _CAUSE.search(line)]
    headers = [line for line in telling if "fatal error:" in line]
    return in_a_few_words((headers or telling[-1:] or lines[-1:] or ["it cannot be built"])[0])


def _last_error(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.lstrip().startswith("ERROR:")]
    return (errors or lines or ["pip failed"])[-1]


def in_a_few_words(text: str) -> str:
    """Without addresses: they may be this machine's own index, and the text goes into labels."""
    short = " ".join(_URL.sub("<url>", re.sub(r"host='[^']*'", "host", text)).split()).removeprefix("ERROR: ")
    return short if len(short) <= WHY_CHARACTERS else f"{short[: WHY_CHARACTERS - 1]}…"


# ---- requirements

_PINNED = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*===?\s*([^\s;,*]+)\s*(;.*)?")


def name_of(requirement: str) -> str:
    """The canonical name of the package that a line asks for; empty for a URL."""
    found = re.match(r"\s*([A-Za-z0-9][\w.-]*)(?!.*://)", requirement)
    return str(canonicalize_name(found[1])) if found else ""


def pin_of(requirement: str) -> Version | None:
    """The version that a line asks for by `==`."""
    found = _PINNED.fullmatch(requirement)
    return as_version(found[3]) if found else None


def repinned(requirement: str, version: str) -> str:
    """The same line with another version."""
    found = _PINNED.fullmatch(requirement)
    if not found:
        raise ValueError(f"not pinned: {requirement}")
    return f"{found[1]}{found[2] or ''}=={version}{found[4] or ''}"


def as_version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def ranked(wanted: Version, available: tuple[str, ...], wheels: frozenset[str], must_not_be_built: bool) -> list[str]:
    """Versions to take instead, the best first: of the same minor version, then newer ones of the same major, then any;
    the nearest of each, the newer of two. Where building has failed, all with a wheel come first."""

    def rank(version: Version, text: str) -> tuple[object, ...]:
        same_minor = version.release[:2] == wanted.release[:2]
        newer = version > wanted
        group = 0 if same_minor else 1 if newer and version.major == wanted.major else 2
        bare = text not in wheels
        return (must_not_be_built and bare, group, version.is_prerelease, not newer, bare)

    found = [(version, text) for text in available if (version := as_version(text)) and version != wanted]
    older = sorted((each for each in found if each[0] < wanted), reverse=True)
    newer = sorted(each for each in found if each[0] > wanted)
    return [text for _, text in sorted([*newer, *older], key=lambda each: rank(*each))]
