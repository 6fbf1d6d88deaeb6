"""`repo-agent view`: runs as one HTML page, or served on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.sweep import SWEEP_FILE
from eval.viewer.packing import Packed, pack
from eval.viewer.page import page
from eval.viewer.serve import ViewerServer
from eval.viewer.sources import run_sources
from harness.cli import Parser, at_least
from harness.errors import UsageError
from harness.run_files import refuse_run_file

DEFAULT_PORT = 8008


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent view", description="Look at runs in a browser: a page that needs no network.")
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directory, sweep, or a directory of runs")
    made.add_argument("--out", type=Path, help="the page (default: view.html in the first RUN)")
    made.add_argument(
        "--serve",
        type=at_least(0),
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"serve it on this machine instead of writing it (default port: {DEFAULT_PORT}; 0: any free one)",
    )
    return made


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.serve is not None and args.out:
        raise UsageError("--serve writes no page: leave out --out, or --serve")
    runs = [path for path in args.runs if path.name != SWEEP_FILE] or args.runs  # ROOT/* of a sweep
    out = args.out or runs[0] / "view.html"
    sources = run_sources(runs)
    if args.serve is None:
        refuse_run_file(out, "--out")
        if not out.parent.is_dir():
            raise UsageError(f"--out {out}: there is no directory {out.parent}")
    data = pack(sources)
    return _serve(data, args.serve) if args.serve is not None else _write(data, out)


def _write(data: Packed, out: Path) -> int:
    new = out.with_name(f"{out.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(page(data))
    new.replace(out)
    print(f"{out}: {data.rollouts} rollouts, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def _serve(data: Packed, port: int) -> int:
    with ViewerServer(data, port) as server:
        print(f"{data.rollouts} rollouts at {server.address} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
