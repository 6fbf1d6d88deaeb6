"""Speed and memory of `repo-agent sft-extract`: `python tests/benchmarks/extract_speed.py [--mb 200]`.

Writes a synthetic log as TraceStore would (rollouts of 10 steps, 2 to 8 KB a step, no text twice, four rollouts at a
time), then extracts it in a process of its own, once per granularity, and prints MB read and written per second and the
peak of resident memory (VmHWM). MB are 10**6 bytes. The process has one thread; the rates are given by its time on a
core and by the clock, which on a shared machine counts others' work too. Asked for, on 2 GB: trajectory granularity at
least 40 MB/s read, step granularity at least 100 MB/s written, less than 400 MB resident.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.events import CompletionEvent, DoneEvent, EndEvent, Event, OutcomeEvent, StartEvent, stored
from harness.records import (
    FORMAT_VERSION,
    Completion,
    Header,
    Message,
    Sampling,
    Score,
    Step,
    StopReason,
    TestPolicy,
    TestReport,
)
from harness.trace_store import TRACES
from tools.protocol import call_text, final_text, parse

ROOT = Path(__file__).parents[2]
STEPS, TOGETHER, TASKS = 10, 4, 200
PROMPT = (Message(role="system", content="s" * 1500), Message(role="user", content="GOAL: g" * 40))
TESTS = tuple(f"tests/test_module.py::test_case_{number}" for number in range(8))
CHILD = """
import sys
from pathlib import Path
from trainers.sft_extract_cli import main
code = main(sys.argv[1:])
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
sys.exit(code)
"""


class Texts:
    """Pieces of something like source code, 2 to 8 KB, none twice."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        words = ["".join(self._random.choices("abcdefghij_", k=7)) for _ in range(5000)]
        lines = (f'    {" ".join(self._random.choices(words, k=7))} = "é\\t{index}"' for index in range(100_000))
        self._pool = "\n".join(lines)
        self._made = 0

    def piece(self) -> str:
        self._made += 1
        start, length = self._random.randrange(len(self._pool) - 8000), self._random.randrange(1700, 7700)
        return f"# {self._made}\n{self._pool[start : start + length]}"


def line(event: Event) -> bytes:
    """As TraceStore.append makes it."""
    fields = event.model_dump(mode="json")
    return json.dumps({**fields, "event": event.event}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def rollout_lines(number: int, texts: Texts) -> Iterator[bytes]:
    name = f"task{number % TASKS:03d}#{number // TASKS}"
    header = Header(
        rollout=name, task=name[:7], suite="synthetic", suite_version="1", split="train",
        index=number // TASKS, policy="scripted", sampling=Sampling(seed=number), test_policy=TestPolicy.ON_WRITE,
        expected_tests=TESTS, prompt=PROMPT,
    )  # fmt: skip
    yield line(StartEvent(format=FORMAT_VERSION, time=1.0, header=header))
    parent = None
    for index in range(STEPS):
        step = made_step(index, parent, texts)
        yield line(CompletionEvent(rollout=name, step=step.id, parent=parent, time=1.0, completion=step.completion))
        yield line(OutcomeEvent(rollout=name, step=stored(step)))
        parent = step.id
    yield line(DoneEvent(rollout=name, stop=StopReason.FINAL))
    score = Score(value=1.0, why="every expected test passed")
    end = EndEvent(
        rollout=name, stop=StopReason.FINAL, score=score, error="", patch=texts.piece(), seconds=1.0, score_seconds=0.5
    )
    yield line(end)


def made_step(index: int, parent: str | None, texts: Texts) -> Step:
    path, report, observation = f"package/module_{index}.py", None, None
    if index == STEPS - 1:
        text = final_text(texts.piece())
    elif index % 3 == 2:
        text = call_text("write_file", rel_path=path, content=texts.piece())
        report = TestReport(outcomes=dict.fromkeys(TESTS, "passed"), expected=TESTS, seconds=0.25)
        observation = f"[tool_result]\nreplaced {path} (80 lines)\n\n[TESTS PASS] {len(TESTS)} passed"
    else:
        text = call_text("read_file", rel_path=path)
        observation = f"[tool_result]\n{texts.piece()}"
    return Step(
        id=f"s{index:04d}", parent=parent, completion=Completion(text=text, seconds=1.5), call=parse(text),
        observation=observation, report=report, digest=f"{index:064x}", tool_seconds=0.0001,
    )  # fmt: skip


def write_log(path: Path, size: int) -> int:
    """Rollouts that take turns, event by event; the bytes written."""
    texts, written, number = Texts(), 0, 0
    with path.open("wb") as file:
        while written < size:
            running = [rollout_lines(number + each, texts) for each in range(TOGETHER)]
            number += TOGETHER
            while running:
                for each in list(running):
                    if data := next(each, None):
                        written += file.write(data)
                    else:
                        running.remove(each)
    return written


def measured(log: Path, read: int, more: list[str]) -> None:
    output = log.parent / "rows.jsonl"
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", CHILD, "--trace-dir", str(log), "--output", str(output), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    core_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        sys.exit(done.stderr)
    found = re.search(r"VmHWM:\s+(\d+)", done.stdout)
    assert found
    written = output.stat().st_size
    output.unlink()
    rates = "; ".join(
        f"by the {by}: {spent:.1f} s, read {read / 1e6 / spent:.0f} MB/s, written {written / 1e6 / spent:.0f} MB/s"
        for by, spent in (("core", core_s), ("clock", seconds))
    )
    resident = int(found[1]) * 1024 / 1e6
    print(f"{' '.join(more)}: {written / 1e6:.0f} MB written; {rates}; peak resident {resident:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=2000, help="size of the log in MB (default: 2000)")
    parser.add_argument("--dir", type=Path, help="where the files go (default: a temporary directory)")
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="extract-speed-", dir=args.dir))
    try:
        log = directory / TRACES
        read = write_log(log, args.mb * 10**6)
        print(f"log: {read / 1e6:.0f} MB", flush=True)
        for granularity in ("trajectory", "step"):
            measured(log, read, ["--granularity", granularity])
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
