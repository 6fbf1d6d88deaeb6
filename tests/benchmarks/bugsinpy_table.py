"""The README's table of BugsInPy: `python tests/benchmarks/bugsinpy_table.py PROJECT…`.

One row per project, of what is there: bugs by state from the status file, median seconds of a test run on the fixed
tree, environments with the seconds that their builds took and the megabytes on top of their base images. Build and
validate first (`repo-agent images build bugsinpy:PROJECT`, `repo-agent suites validate bugsinpy:PROJECT`).
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter

from sandboxes.image_store import StoredImage, stored_images
from sandboxes.leftovers import engine
from suites.bugsinpy.status import State
from suites.bugsinpy.suite import BugsinpySuite

MEGABYTE = 10**6


def row(project: str, images: dict[str, StoredImage]) -> list[str]:
    suite = BugsinpySuite(None, f":{project}")
    states = {bug: suite.status[bug] for bug in [*suite.bugs, *suite.unreadable] if bug in suite.status}
    counts = Counter(status.state for status in states.values())
    reproduced = [status for status in states.values() if status.state is State.REPRODUCED]
    others = [f"{bug} {status.state}" for bug, status in states.items() if status.state is not State.REPRODUCED]
    built = [images[spec.image] for spec in suite.environments() if spec.image in images]
    runs = [status.run_s for status in reproduced]
    return [
        project,
        f"{counts[State.REPRODUCED]} of {len(suite.bugs) + len(suite.unreadable)}",
        ", ".join(others),
        f"{statistics.median(runs):.1f} (to {max(runs):.1f})" if runs else "",
        str(len(built)),
        f"{sum(float(image.said('seconds') or 0) for image in built):.0f}",
        f"{sum(image.own_bytes for image in built) / MEGABYTE:.0f}",
    ]


def main(projects: list[str]) -> None:
    with engine() as client:
        images = {image.name: image for image in stored_images(client)}
    print("| project | reproduced | others | test run, s | environments | built in, s | MB on the base |")
    print("|---|---|---|---|---|---|---|")
    for project in projects:
        print(f"| {' | '.join(row(project, images))} |")


if __name__ == "__main__":
    main(sys.argv[1:])
