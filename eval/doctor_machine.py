"""What the machine has: versions, cores, memory, disk, caches, and where suites come from."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from eval.doctor import CALL_S, Check, Finding, asked, broken, missing, ok
from harness.versions import versions
from sandboxes.cache_directory import CACHE_VARIABLE, cache_directory
from sandboxes.verdict_cache import verdict_directory
from suites.bugsinpy.metadata import UPSTREAM as BUGSINPY
from suites.fetch import MIRROR_VARIABLE
from suites.gsm8k.loading import HUB_CONFIG, HUB_NAME
from suites.quixbugs.suite import UPSTREAM as QUIXBUGS

EMBEDDED = ("minibugs", "arith")
LEAST_FREE_BYTES = 2 * 10**9
_GB, _MB = 1e9, 1e6
_SITE = "https://github.com"


def checks() -> list[Check]:
    return [
        Check("repo-agent", _ourselves),
        Check("git", _git),
        Check("cores and memory", _memory),
        Check("disk", _disk),
        Check("caches", _caches),
        Check("suites", _suites, f"set {MIRROR_VARIABLE} to a directory (or --mirror)"),
    ]


def _ourselves() -> Iterator[Finding]:
    found = versions()
    commit = f", commit {found['commit'][:12]}{'+' * found['commit'].endswith('+')}" if found["commit"] else ""
    yield ok(
        "repo-agent", f"{found['repo-agent']}{commit}, Python {platform.python_version()}, litellm {found['litellm']}"
    )


def _git() -> Iterator[Finding]:
    said = asked("git", "--version")
    if said:
        yield ok("git", said.removeprefix("git version "))
    else:
        yield missing("git", "not installed; quixbugs and bugsinpy are fetched with it", "sudo apt-get install git")


def _memory() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_limit()
    capped = f", of which this process may use {limit / _GB:.1f}" if limit and limit < total else ""
    free = _available()
    yield ok(
        "cores and memory", f"{cores} cores; {total / _GB:.1f} GB{capped}{f', {free / _GB:.1f} free' if free else ''}"
    )


def _available() -> int:
    """Bytes that can be had without swapping; 0 where the kernel does not say."""
    path = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", path.read_text(encoding="ascii")) if path.exists() else None
    return int(found[1]) * 1024 if found else 0


def _cgroup_limit() -> int:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(name).exists() and (said := Path(name).read_text(encoding="ascii").strip()).isdecimal():
            return int(said)
    return 0


def _disk() -> Iterator[Finding]:
    """Where runs, caches and temporary files go."""
    places = {"runs": Path.cwd(), "caches": cache_directory(), "temporary files": Path(tempfile.gettempdir())}
    there = {name: _existing(path) for name, path in places.items()}
    free = {name: shutil.disk_usage(path).free for name, path in there.items()}
    said = "; ".join(f"{name} {free[name] / _GB:.1f} GB free in {path}" for name, path in there.items())
    if closed := [name for name, path in there.items() if not os.access(path, os.W_OK)]:
        yield broken(
            "disk", f"{said}; no right to write: {', '.join(closed)}", f"{CACHE_VARIABLE}, TMPDIR, --trace-dir"
        )
    elif min(free.values()) < LEAST_FREE_BYTES:
        yield broken("disk", f"little is left: {said}", "repo-agent sandbox prune; repo-agent images prune bugsinpy")
    else:
        yield ok("disk", said)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _caches() -> Iterator[Finding]:
    files, size = _used(verdict_directory())
    repositories = len(list((cache_directory() / "git").glob("*/*.git")))
    kept = f"{files:,} verdicts ({size / _MB:.0f} MB), {repositories} repositories"
    yield ok("caches", f"{kept} in {cache_directory()}")


def _used(directory: Path) -> tuple[int, int]:
    """Files under a directory, and their bytes."""
    files = size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # pruned just now
                continue
            files += 1
    return files, size


# ---- where suites come from


def _suites() -> Iterator[Finding]:
    """The mirror with what it holds, else the network, else what is in the cache."""
    if named := os.environ.get(MIRROR_VARIABLE):
        yield _mirror(Path(named))
    elif _reached():
        yield ok("suites", f"from the network ({_SITE} answers)")
    else:
        said = f"no network and no mirror: {', '.join([*EMBEDDED, *_cached()])} can be played"
        yield missing("suites", said, f"set {MIRROR_VARIABLE} to a directory with {QUIXBUGS}.bundle … (docs/doctor.md)")


def _mirror(mirror: Path) -> Finding:
    if not mirror.is_dir():
        return broken("suites", f"{MIRROR_VARIABLE}={mirror} is no directory", f"set {MIRROR_VARIABLE} to another one")
    found = {"quixbugs": _holds(mirror, QUIXBUGS), "bugsinpy": _holds(mirror, BUGSINPY), "gsm8k": _questions(mirror)}
    lacking = [name for name, there in found.items() if not there]
    said = f"mirror {mirror}: {', '.join(name for name, there in found.items() if there) or 'nothing'}"
    if lacking:
        wanted = {"quixbugs": f"{QUIXBUGS}.bundle", "bugsinpy": f"{BUGSINPY}.bundle", "gsm8k": f"datasets/{HUB_NAME}"}
        fix = f"put {', '.join(wanted[name] for name in lacking)} there"
        return missing("suites", f"{said}; not {', '.join(lacking)}", fix)
    return ok("suites", said)


def _holds(mirror: Path, name: str) -> bool:
    return any((mirror / f"{name}{suffix}").exists() for suffix in (".bundle", ".git", ""))


def _questions(mirror: Path) -> bool:
    folder = mirror / "datasets" / HUB_NAME / HUB_CONFIG
    return all((folder / f"{part}.jsonl").is_file() for part in ("train", "test"))


def _cached() -> list[str]:
    kept = cache_directory() / "git"
    return [
        suite for suite, name in (("quixbugs", QUIXBUGS), ("bugsinpy", BUGSINPY)) if (kept / f"{name}.git").is_dir()
    ]


def _reached() -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(_SITE, method="HEAD"), timeout=CALL_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
