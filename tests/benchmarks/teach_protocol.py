"""Does the loop teach? A tiny model from scratch learns the protocol from teacher traces; measured on held-out tasks.

    make experiment        # or: python -m tests.benchmarks.teach_protocol --work DIR [--model NAME] [--out FILE]

Every step is a `repo-agent` command that a user can type; they are printed as they run. The tasks are QuixBugs'
committed split: 28 to learn from, under many names, and 12 held out. `--model` trains another model than the tiny one
(with LoRA), for machines with a GPU.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.records import StopReason, Trace
from harness.statistics import wilson_interval
from harness.trace_reader import read_traces
from harness.versions import versions

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "eval" / "suites"
TRAIN, HELD_OUT = str(SUITES / "quixbugs_train_suite.json"), str(SUITES / "quixbugs_test_suite.json")


@dataclass
class Lab:
    """Where the experiment lies, and what it has run."""

    work: Path
    settings: argparse.Namespace
    seconds: dict[str, float] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    evaluated: list[str] = field(default_factory=list)

    def run(self, stage: str, *arguments: object) -> None:
        """One command of repo-agent; its failure ends the experiment."""
        words = [str(each) for each in arguments]
        shown = shlex.join(["repo-agent", *(self._short(word) for word in words)])
        print(f"\n$ {shown}", flush=True)
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "repo_agent", *words], cwd=self.work, check=True)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began
        self.commands.append(shown)

    def _short(self, word: str) -> str:
        return word.replace(f"{ROOT}{os.sep}", "").replace(f"{self.work}{os.sep}", "")

    def evaluate(self, name: str, model: str, rollouts: int, max_iters: int) -> None:
        """Play each held-out task so often."""
        chosen = self.settings
        how = ("--temperature", chosen.temperature, "--rollouts", rollouts, "--max-iters", max_iters)
        self.run(f"eval {name}", "eval", *_play(HELD_OUT, model, chosen), *how, "--trace-dir", f"eval-{name}")
        self.evaluated.append(name)


def _play(suite: str, model: str, chosen: argparse.Namespace) -> list[object]:
    """The flags that eval and prefs have in common for a local model."""
    return [
        *("--suite", suite, "--llm-provider", "hf", "--model", model, "--test-policy", "final", "--seed", chosen.seed),
        *("--max-tokens", chosen.max_tokens, "--num-workers", 16, "--hf-batch-size", 16, "--isolation", "run"),
    ]


def experiment(lab: Lab) -> None:
    """From nothing to the last evaluation."""
    chosen = lab.settings
    base = chosen.model or "base"
    how = ["--batch-size", 4, "--learning-rate", chosen.learning_rate, "--epochs", chosen.epochs, "--seed", chosen.seed]
    if not chosen.model:
        practice = ("--copying-steps", chosen.copying_steps)
        lab.run("init", "train", "init-tiny", "--output-dir", base, "--seed", chosen.seed, *practice)
        how.append("--no-lora")
    teach(lab, base)
    lab.evaluate("before", base, 1, 3)  # none of its messages ends: each costs the limit
    lab.run("sft", "train", "sft", "--dataset", "sft.jsonl", "--model", base, "--output-dir", "sft", *how)
    lab.evaluate("sft", "sft", chosen.rollouts, chosen.max_iters)
    if prefer(lab):
        lab.evaluate("dpo", "dpo", chosen.rollouts, chosen.max_iters)


def teach(lab: Lab, base: str) -> None:
    """Teacher traces of the training half under many names, and rows of them."""
    suite, mistakes = f"quixbugs+renamed:{lab.settings.copies}", lab.settings.mistakes
    common = ("eval", "--suite", suite, "--test-policy", "final", "--isolation", "run", "--trace-dir", "teacher")
    errs = ("--model", "cut-off", "--temperature", mistakes) if mistakes else ()
    lab.run("teacher", *common, "--llm-provider", "reference", *errs)
    extract = ("sft-extract", "--trace-dir", "teacher", "--output", "sft.jsonl", "--target", "trl")
    lab.run("teacher", *extract, "--tokenizer", base)
    lab.run("teacher", "data", "check", "sft.jsonl", "--against", HELD_OUT)


def prefer(lab: Lab) -> bool:
    """Pairs of the model's own rollouts on the training half, and DPO on them; whether there were any pairs."""
    chosen = lab.settings
    how = ("--temperature", 1.0, "--rollouts", chosen.prefs_rollouts, "--max-iters", 6)
    forks = ("--fork-at", "write", "--fork-actions", 4, "--fork-plays", 2, "--fork-rollouts", chosen.fork_rollouts)
    out = ("--max-malformed", 1, "--target", "trl", "--trace-dir", "prefs", "--out", "prefs.jsonl")
    lab.run("prefs", "prefs", *_play(TRAIN, "sft", chosen), *how, *forks, *out)
    if not (lab.work / "prefs.jsonl").stat().st_size:
        return False
    dpo = ("--dataset", "prefs.jsonl", "--model", "sft", "--output-dir", "dpo", "--seed", chosen.seed)
    steps = ("--learning-rate", chosen.dpo_learning_rate, "--epochs", 3, "--batch-size", 4)
    loss = ("--loss-type", "sigmoid_norm", "--beta", chosen.beta, "--sft-weight", 1)  # a sum teaches: long is bad
    lab.run("dpo", "train", "dpo", *dpo, *(() if chosen.model else ("--no-lora",)), *steps, *loss)
    return True


@dataclass(frozen=True)
class Figures:
    """What held-out rollouts came to."""

    rollouts: int
    tasks: int
    steps: int
    strict: int
    """Steps whose message is strictly one protocol object."""
    valid: int
    """Those of them whose tool call gave no error; a final answer is one."""
    read: int
    """Rollouts that read a file that may be edited."""
    wrote: int
    ended: int
    """Rollouts that ended with a final answer."""
    complete: int
    """Rollouts that did all three, in this order."""
    loops: int
    """Rollouts in which a loop was detected."""
    solved: int


def figures(traces: Sequence[Trace], editable: dict[str, frozenset[str]]) -> Figures:
    """Counted over the traces of one evaluation."""
    steps = [step for trace in traces for step in trace.steps]
    strict = [step for step in steps if step.call.problem is None]
    did = [_did(trace, editable[trace.header.task]) for trace in traces]
    return Figures(
        rollouts=len(traces),
        tasks=len({trace.header.task for trace in traces}),
        steps=len(steps),
        strict=len(strict),
        valid=sum(step.error is None for step in strict),
        read=sum("read" in each for each in did),
        wrote=sum("write" in each for each in did),
        ended=sum("final" in each for each in did),
        complete=sum(each == ["read", "write", "final"] for each in did),
        loops=sum(any(step.loop for step in trace.steps) for trace in traces),
        solved=sum(bool(trace.score and trace.score.value == 1) for trace in traces),
    )


def _did(trace: Trace, editable: frozenset[str]) -> list[str]:
    """The milestones of a rollout in the order in which they were first reached."""
    names = {"read_file": "read", "write_file": "write"}
    done = [
        names[step.call.name]
        for step in trace.steps
        if step.call.problem is None and step.error is None and step.call.name in names
        if step.call.args["rel_path"] in editable
    ]
    return [*dict.fromkeys(done), *(["final"] if trace.stop is StopReason.FINAL else [])]


def editable_files() -> dict[str, frozenset[str]]:
    """By held-out task."""
    from suites.base import load
    from suites.fetch import mirror_directory

    return {task.id: frozenset(task.editable) for task in load(HELD_OUT, mirror_directory(None)).tasks()}


def report(lab: Lab, found: dict[str, Figures]) -> str:
    """Markdown."""
    head = f"| on {found['sft'].tasks} held-out tasks | {' | '.join(found)} |\n|---|{'---|' * len(found)}"
    rows = [_row(label, kind, found.values()) for label, kind in ROWS]
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in lab.seconds.items())
    commands = "\n".join(f"    {command}" for command in lab.commands)
    minutes = sum(lab.seconds.values()) / 60
    about = f"Seed {lab.settings.seed}; Python {versions()['python']}. All together {minutes:.1f} minutes: {times}."
    no_pairs = [] if "dpo" in found else ["There was no DPO: the model's own rollouts gave no pair."]
    return "\n\n".join(["\n".join([head, *rows]), *no_pairs, about, commands]) + "\n"


ROWS = (
    ("steps that parse strictly", ("strict", "steps")),
    ("steps that parse strictly and whose tool worked", ("valid", "steps")),
    ("rollouts that read the editable file, wrote it, and ended with `final`, in this order", ("complete", "rollouts")),
    ("rollouts that read it", ("read", "rollouts")),
    ("rollouts that wrote it", ("wrote", "rollouts")),
    ("rollouts that ended with `final`", ("ended", "rollouts")),
    ("rollouts with a loop", ("loops", "rollouts")),
    ("solved", ("solved", "rollouts")),
    ("mean steps", ("steps", "")),
)


def _row(label: str, kind: tuple[str, str], found: Iterable[Figures]) -> str:
    cells = [_cell(each, *kind) for each in found]
    return f"| {label} | {' | '.join(cells)} |"


def _cell(found: Figures, part: str, whole: str) -> str:
    """A share with a 95% interval that counts tasks as the independent units."""
    if not whole:
        return f"{getattr(found, part) / found.rollouts:.1f}"
    share = getattr(found, part) / max(1, getattr(found, whole))
    low, high = wilson_interval(share, found.tasks)
    return f"{getattr(found, part)} of {getattr(found, whole)}: {share:.0%} ({low:.0%} to {high:.0%})"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, required=True, help="a new directory")
    made.add_argument("--out", type=Path, help="where the report goes (default: report.md in it)")
    made.add_argument("--model", default="", help="train this model with LoRA instead of a tiny one from scratch")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--copies", type=int, default=48, help="of each training task, under other names")
    made.add_argument("--copying-steps", type=int, default=1000, help="of practice before anything else")
    made.add_argument("--mistakes", type=float, default=0.0, help="temperature of a teacher that errs")
    made.add_argument("--epochs", type=float, default=1.0, help="of SFT")
    made.add_argument("--learning-rate", type=float, default=1e-3, help="of SFT")
    made.add_argument("--dpo-learning-rate", type=float, default=5e-5)
    made.add_argument("--beta", type=float, default=2.0)
    made.add_argument("--temperature", type=float, default=0.3, help="of the evaluations")
    made.add_argument("--rollouts", type=int, default=4, help="of each held-out task")
    made.add_argument("--max-iters", type=int, default=10)
    made.add_argument("--max-tokens", type=int, default=800)
    made.add_argument("--prefs-rollouts", type=int, default=2)
    made.add_argument("--fork-rollouts", type=int, default=120)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(argv)
    chosen.work.mkdir(parents=True)
    lab = Lab(chosen.work.resolve(), chosen)
    experiment(lab)
    editable = editable_files()
    found = {name: figures(list(read_traces(lab.work / f"eval-{name}")), editable) for name in lab.evaluated}
    text = report(lab, found)
    (chosen.out or lab.work / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
