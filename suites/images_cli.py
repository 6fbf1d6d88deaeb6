"""`repo-agent images`: the images of the environments that suites' tasks need."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker
from rich.table import Table
from rich.text import Text

from harness.cli import Subcommand, add_suite_flags, at_least, parser_of
from harness.errors import UsageError
from harness.progress import console, notice
from sandboxes.image_archive import BadArchive, export_images, import_images
from sandboxes.image_store import (
    StoredImage,
    disk_bytes,
    is_current,
    remove_image,
    stored_images,
    verify_image,
)
from sandboxes.leftovers import engine
from sandboxes.python_images import TEMPLATE_VARIABLE, BuildFailure, Outcome, PythonImages
from sandboxes.python_spec import PythonSpec
from sandboxes.run_scope import RunScope
from suites.base import load
from suites.environments import MEGABYTE, described, environments_of
from suites.fetch import mirror_directory

ENGINE_S = 900
EXIT_FAILED, EXIT_LEFT = 1, 3


def parser() -> argparse.ArgumentParser:
    return parser_of("repo-agent images", "The images of the environments that tasks are played in.", SUBCOMMANDS)


def main(argv: Sequence[str]) -> int:
    """The exit code is 0; 1 where a build failed or an image is broken; 3 where what was to be removed stays."""
    args = parser().parse_args(argv)
    return SUBCOMMANDS[args.command].main(args)


def _suite_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("suite", help="suite name or suite file")
    add_suite_flags(made)


def _wanted(args: argparse.Namespace, name: str = "") -> dict[PythonSpec, tuple[str, ...]]:
    """The environments of a suite, those that most tasks need first."""
    found = environments_of(load(name or args.suite, mirror_directory(args.mirror)))
    return dict(sorted(found.items(), key=lambda each: (-len(each[1]), each[0].fingerprint)))


def _stored(client: docker.DockerClient) -> dict[str, StoredImage]:
    return {image.name: image for image in stored_images(client) if image.name}


# ---- plan, build


def plan(args: argparse.Namespace) -> int:
    wanted = _wanted(args)
    with engine() as client:
        there = _stored(client)
    table = Table("fingerprint", "Python", "requirements", "extras", "tasks", "state", "MB on its base")
    for spec, tasks in wanted.items():
        image = there.get(spec.image)
        state, size = ("built", _megabytes(image.own_bytes)) if image else ("missing", "")
        counts = (len(spec.requirements), len(spec.extras), len(tasks))
        table.add_row(spec.fingerprint, spec.python, *map(str, counts), state, size)
    console().print(table)
    built = [there[spec.image] for spec in wanted if spec.image in there]
    print(f"{len(wanted)} environments, {len(built)} built, {len(wanted) - len(built)} missing; {_sizes(built)}")
    return 0


def _build_flags(made: argparse.ArgumentParser) -> None:
    _suite_flags(made)
    made.add_argument("--jobs", type=at_least(1), default=2, help="builds at the same time (default: 2)")
    made.add_argument("--limit", type=at_least(1), help="only the N environments that most tasks need")
    made.add_argument("--rebuild", action="store_true", help="those that are there, too")
    made.add_argument(
        "--python-images",
        default="",
        metavar="TEMPLATE",
        help=f"base images; {{version}} becomes 3.7, {{nodot}} 37 ({TEMPLATE_VARIABLE})",
    )


def build(args: argparse.Namespace) -> int:
    specs = list(_wanted(args))[: args.limit]
    count = 0

    def on_done(outcome: Outcome) -> None:
        nonlocal count
        count += 1
        print(f"[{count}/{len(specs)}] {described(outcome)}", flush=True)

    with PythonImages(args.python_images, notice) as images:
        outcomes = images.build_all(specs, args.jobs, on_done, args.rebuild)
    failed = sum(isinstance(outcome, BuildFailure) for outcome in outcomes)
    with engine() as client:
        there = _stored(client)
    print(f"{len(specs) - failed} of {len(specs)} are there, {failed} failed; {_sizes(_of(specs, there))}")
    return EXIT_FAILED if failed else 0


def _of(specs: Sequence[PythonSpec], there: Mapping[str, StoredImage]) -> list[StoredImage]:
    return [there[spec.image] for spec in specs if spec.image in there]


# ---- ls, verify, prune


def ls(_: argparse.Namespace) -> int:
    with engine() as client:
        found = stored_images(client)
    table = Table("fingerprint", "Python", "packages", "relaxed", "dropped", "created", "MB on its base", "MB in all")
    for image in found:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(image.created))
        name = image.fingerprint if image.name else f"{image.id[7:19]} (no name)"
        counts = [str(len(image.recorded(label))) for label in ("packages", "relaxed", "dropped")]
        sizes = (_megabytes(image.own_bytes), _megabytes(image.size_bytes))
        table.add_row(*map(Text, (name, image.said("python"), *counts, created, *sizes)))
    console().print(table)
    print(f"{len(found)} images; {_sizes(found)}")
    return 0


def _sizes(images: Sequence[StoredImage]) -> str:
    own, shared = disk_bytes(images)
    return f"{_megabytes(own)} MB of their own on {_megabytes(shared)} MB of base images"


def _verify_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("suite", nargs="?", help="only the images of this suite; all of them must be there")
    add_suite_flags(made)


def verify(args: argparse.Namespace) -> int:
    specs = list(_wanted(args)) if args.suite else None
    scope, broken = RunScope(engine=True), 0
    with engine(ENGINE_S) as client:
        there = _stored(client)
        names = [spec.image for spec in specs] if specs is not None else list(there)
        try:
            for name in names:
                broken += not _verified(client, scope, name, there.get(name))
        finally:
            scope.close()
    print(f"{len(names) - broken} of {len(names)} images work, {broken} do not")
    return EXIT_FAILED if broken else 0


def _verified(client: docker.DockerClient, scope: RunScope, name: str, image: StoredImage | None) -> bool:
    """Say how an image is."""
    fingerprint = name.rpartition(":")[2]
    if image is None:
        print(f"{fingerprint}  BROKEN  it is missing", flush=True)
        return False
    found = verify_image(client, scope, image)
    verdict = f"BROKEN  {'; '.join(found.faults)}" if found.faults else f"works  pytest {found.pytest}"
    print(f"{fingerprint}  Python {image.said('python')}  {verdict}", flush=True)
    for line in found.inconsistent:
        print(f"    pip check: {line}")
    return not found.faults


def _prune_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("suite", nargs="*", help="remove what none of these suites needs")
    add_suite_flags(made)
    made.add_argument("--all", action="store_true", help="remove all images of environments")
    made.add_argument("--yes", action="store_true", help="do not ask")


def prune(args: argparse.Namespace) -> int:
    needed = {spec.image for name in args.suite for spec in _wanted(args, name)}
    with engine(ENGINE_S) as client:
        chosen = [image for image in stored_images(client) if args.all or _is_useless(image, needed)]
        if not chosen:
            print("nothing to remove")
            return 0
        for image in chosen:
            print(f"{image.fingerprint}  Python {image.said('python')}  {_megabytes(image.own_bytes)} MB")
        if not args.yes and not _agreed(f"remove these {len(chosen)} images?"):
            print("nothing was removed")
            return 0
        stayed = [image for image in chosen if not _removed(client, image)]
    freed = sum(image.own_bytes for image in chosen if image not in stayed)
    print(f"removed {len(chosen) - len(stayed)} of {len(chosen)} images, {_megabytes(freed)} MB")
    return EXIT_LEFT if stayed else 0


def _is_useless(image: StoredImage, needed: set[str]) -> bool:
    """No recipe of today makes it; or, where suites were given, none of them needs it."""
    return not image.name or not is_current(image) or (bool(needed) and image.name not in needed)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("images are removed only with --yes where nobody can be asked")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _removed(client: docker.DockerClient, image: StoredImage) -> bool:
    why = remove_image(client, image)
    if why:
        notice(f"{image.fingerprint} stays: {why}")
    return not why


# ---- export, import


def _export_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("what", nargs="+", metavar="SUITE|FINGERPRINT", help="all images of a suite, or single ones")
    made.add_argument("--out", type=Path, required=True, help="the file: .tar, or .tar.gz to compress it")
    add_suite_flags(made)


def export(args: argparse.Namespace) -> int:
    with engine(ENGINE_S) as client:
        there = _stored(client)
        by_fingerprint = {image.fingerprint: [name] for name, image in there.items()}
        named = [by_fingerprint.get(what) or [spec.image for spec in _wanted(args, what)] for what in args.what]
        names = list(dict.fromkeys(name for each in named for name in each))
        if missing := [name for name in names if name not in there]:
            raise UsageError(f"{len(missing)} of {len(names)} images are not built, {missing[0]} among them")
        own, shared = disk_bytes([there[name] for name in names])
        export_images(client, names, args.out, _Meter("saved", own + shared))
    print(f"{args.out}: {len(names)} images, {_megabytes(args.out.stat().st_size)} MB")
    return 0


def _import_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("file", type=Path, help="what `images export` has written")


def load_archive(args: argparse.Namespace) -> int:
    with engine(ENGINE_S) as client:
        try:
            specs = import_images(client, args.file, _Meter("loaded", args.file.stat().st_size))
        except BadArchive as error:
            raise UsageError(str(error)) from error
    for spec in specs:
        print(f"{spec.fingerprint}  Python {spec.python}")
    print(f"{len(specs)} images are there")
    return 0


class _Meter:
    """Says on standard error how many bytes have passed, every few seconds."""

    def __init__(self, verb: str, total_bytes: int) -> None:
        self._verb, self._total_bytes, self._next = verb, total_bytes, time.monotonic() + 2

    def __call__(self, done_bytes: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 5
            notice(f"{self._verb} {_megabytes(done_bytes)} of about {_megabytes(self._total_bytes)} MB")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:.0f}"


SUBCOMMANDS = {
    "plan": Subcommand("the environments that a suite's tasks need, and which are built", plan, _suite_flags),
    "build": Subcommand("build those that are missing", build, _build_flags),
    "ls": Subcommand("the images that this engine has", ls),
    "verify": Subcommand("start images, and run a test in each", verify, _verify_flags),
    "prune": Subcommand("remove images that nothing needs", prune, _prune_flags),
    "export": Subcommand("write images to a file, for a machine without a network", export, _export_flags),
    "import": Subcommand("load images from such a file", load_archive, _import_flags),
}
