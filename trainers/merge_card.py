"""The model card: what a merged model is made of, what it was trained on, and how it is to be used and measured."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.redaction import Redactor
from harness.training_history import NOT_KNOWN, TrainingRun
from harness.versions import versions

_PROTOCOL = (
    "It answers in repo-agent's JSON tool protocol (`--tool-protocol {name}`): the whole message is one JSON object, "
    'a tool call `{{"type": "tool_call", "name": …, "args": {{…}}}}` or `{{"type": "final", "summary": …}}`; '
    "a result comes back as one user message that starts with `[tool_result]`. It is no general chat model."
)
_WHOLE = "All weights of this model were trained."
_RESULTS = {
    "rows": "rows",
    "dropped_over_length": "rows that were too long, and left out",
    "steps": "steps",
    "tokens": "tokens",
    "seconds": "seconds",
    "first_logged_loss": "first logged loss",
    "last_logged_loss": "last logged loss",
    "final_loss": "final loss",
}


@dataclass(frozen=True)
class MergedModel:
    """What the card tells."""

    base: str
    """A directory, or a name on the hub."""
    adapter: bool
    """It was an adapter that was merged; else a model that was trained whole."""
    parameters: int
    dtype: str
    positions: int | None
    """Tokens of the longest conversation; None where there is no limit."""
    runs: tuple[TrainingRun, ...]
    """Oldest first."""
    eval_name: str
    """What `repo-agent eval --model` is given."""


def card_text(about: MergedModel) -> str:
    """Markdown with the metadata that the hub reads; secrets are masked."""
    parts = [_metadata(about), f"# {Path(about.eval_name).name}", _made_of(about)]
    parts += ["## Leaks", _leaks(about.runs), "## Use", _use(about), "## Training"]
    parts += [part for number, run in enumerate(about.runs, 1) for part in _run(number, run)] or [NOT_KNOWN]
    parts += ["## Merged with", _table(("of", "version"), _versions().items())]
    return Redactor()("\n\n".join(part for part in parts if part) + "\n")


def _metadata(about: MergedModel) -> str:
    lines = ["library_name: transformers", "pipeline_tag: text-generation", "tags:", "- repo-agent"]
    lines += [f"- {kind}" for kind in dict.fromkeys(run.kind for run in about.runs) if kind]
    if not Path(about.base).exists():
        lines.append(f"base_model: {json.dumps(about.base)}")
    return "\n".join(["---", *lines, "---"])


def _made_of(about: MergedModel) -> str:
    name = Path(about.base).name if Path(about.base).exists() else about.base  # no places on this machine
    how = f"Base model: `{name}`; a trained adapter is merged into its weights." if about.adapter else _WHOLE
    return f"{how} {about.parameters:,} parameters in {about.dtype}."


def _leaks(runs: Iterable[TrainingRun]) -> str:
    """What every run's data card says, each thing once."""
    said = dict.fromkeys(line for run in runs for line in run.leakage) or {NOT_KNOWN: None}
    return "\n".join(f"- {line}" for line in said)


def _measure(suite: str) -> str:
    """What the model is to be measured on: of a split's training half, recorded by its name, the other half's file."""
    whole = suite.removesuffix("_train_suite")
    return suite if whole == suite else f"eval/suites/{whole}_test_suite.json"


def _use(about: MergedModel) -> str:
    protocols = dict.fromkeys(name for run in about.runs for name in run.protocols)
    suites = sorted({_measure(suite) for run in about.runs for suite in run.suites}) or ["minibugs"]
    told = _PROTOCOL.format(name=", ".join(protocols) or "json")
    lines = [
        f"    repo-agent eval --suite {suite} --llm-provider hf --model {shlex.quote(about.eval_name)}"
        for suite in suites
    ]
    limit = f"A conversation may have {about.positions:,} tokens." if about.positions else ""
    return "\n\n".join(part for part in (told, "\n".join(lines), limit) if part)


def _run(number: int, run: TrainingRun) -> Iterator[str]:
    yield f"### {number}. {run.kind or 'a run of which nothing is recorded'}"
    if run.data:
        card = f"; its data card: `{run.data_card}`" if run.data_card else "; it had no data card"
        yield f"Rows: `{run.data}`, sha256 {run.data_sha256}{card}."
    yield _table(("result", ""), ((words, run.results[key]) for key, words in _RESULTS.items() if key in run.results))
    yield _table(("setting", "value"), ((name, value) for name, value in run.settings.items() if value is not None))
    yield _table(("of", "version"), run.versions.items())


def _table(head: tuple[str, str], rows: Iterable[tuple[str, object]]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *lines]) if lines else ""


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def _versions() -> dict[str, str]:
    found = {name: text for name, text in versions().items() if name in ("python", "commit", "repo-agent")}
    for name in ("torch", "transformers", "peft", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
