"""How large a run the viewer opens: `python -m tests.benchmarks.viewer --rollouts 2000`.

A run is made from a seed, packed, and opened from disk by a real Chromium. Printed are the seconds that packing takes,
the page's size, the seconds until the table stands and until a rollout of the last block does, the seconds of a filter
and of a sort, and the browser's memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from eval.view_cli import main as view
from tests.browser import browser, ready
from tests.viewer_world import many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser() as chrome:
        run, out = Path(folder) / "run", Path(folder) / "view.html"
        many(run, args.rollouts, args.seed)
        began = time.perf_counter()
        view([str(run), "--out", str(out)])
        print(f"packed in {time.perf_counter() - began:.1f} s")
        print("\n".join(opened(chrome, out.as_uri(), args.rollouts)))


def opened(chrome: Browser, address: str, count: int) -> list[str]:
    """What it took to look at the page, line by line."""
    page = chrome.new_page(viewport={"width": 1280, "height": 800})
    lines = [f"memory of an empty page: {memory()}", f"open: {timed(lambda: ready(page, address)):.2f} s"]
    lines.append(f"memory once it is open: {memory()}")
    last = f"task_{(count - 1) // 4:05}#{(count - 1) % 4}"
    lines.append(f"filter to one: {timed(lambda: filtered(page, last)):.2f} s")
    lines.append(f"open a rollout: {timed(lambda: followed(page, last)):.2f} s")
    page.keyboard.press("Escape")
    page.get_by_label("Filter rollouts").fill("")
    lines.append(f"sort: {timed(lambda: page.get_by_role('button', name='tokens').click()):.2f} s")
    lines.append(f"memory after that: {memory()}")
    return lines


def filtered(page: Page, name: str) -> None:
    page.get_by_label("Filter rollouts").fill(name)
    expect(page.locator("main tbody tr")).to_have_count(1)


def followed(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.locator("article").first).to_be_visible()


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def memory() -> str:
    """Proportional set sizes: of the largest renderer, and of all the browser's processes together."""
    processes = [each for each in Path("/proc").glob("[0-9]*") if b"chrom" in _command(each).split(b"\0")[0]]
    sizes = {each: _proportional_kb(each) / 1024 for each in processes}
    renderers = [size for each, size in sizes.items() if b"--type=renderer" in _command(each)]
    return f"{max(renderers):.0f} MB, the whole browser {sum(sizes.values()):.0f} MB"


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _proportional_kb(process: Path) -> int:
    try:
        lines = (process / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
