"""One record for every default of the pipeline: a flag over an environment variable over what stands here."""

from __future__ import annotations

import argparse
import json
import os
import types
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from harness.errors import UsageError
from harness.records import Record
from harness.redaction import Redactor
from harness.run_files import differences
from suites.base import load
from suites.fetch import mirror_directory
from suites.gsm8k.suite import QuestionSuite
from trainers.card import atomic_file
from trainers.grpo_settings import LossType
from trainers.rewards import reward_weights

CONFIG_FILE = "config.json"
PLAIN_VARIABLES = (
    "base_model",
    "train_samples",
    "prep_train_samples",
    "eval_samples",
    "num_generations",
    "output_dir",
)
"""Their environment variables are these names; the others' begin with GSM8K_, for they would be too general."""
SAMPLING = (
    "suite", "prompt_format", "prep_train_samples", "seed", "engine", "api_base", "fallback", "device", "dtype",
    "batch_size", "max_tokens",
)  # fmt: skip
EVALUATION = (*SAMPLING, "eval_samples", "temperature")
SFT = (
    "train_samples", "epochs", "learning_rate", "train_batch_size", "lora", "lora_r", "max_length", "save_steps",
)  # fmt: skip
GRPO = (
    "train_samples", "num_generations", "grpo_steps", "prompts_per_step", "grpo_learning_rate", "grpo_temperature",
    "grpo_rewards", "grpo_kl_beta", "grpo_loss_type", "lora", "lora_r", "save_steps",
)  # fmt: skip
"""Names of the settings that commands have flags for."""
FREE = frozenset({"output_dir", "api_base", "batch_size", "save_steps", "rounds"})
"""A run may go on with others of these."""


class Gsm8kSettings(Record):
    """What the pipeline is run with. Saved as config.json in every run's directory."""

    base_model: str = Field(
        default="Qwen/Qwen2.5-1.5B",
        min_length=1,
        description="what the pipeline begins with: a directory or a hub name",
    )
    output_dir: str = Field(
        default="runs/gsm8k", min_length=1, description="the root, where a run's directory is not named"
    )
    suite: Literal["gsm8k", "arith", "arith+easy"] = Field(default="gsm8k", description="the questions")
    prompt_format: Literal["solution", "r1"] = Field(default="solution", description="how they are put (docs/gsm8k.md)")
    train_samples: int = Field(default=512, ge=1, description="questions of full SFT, GRPO and traces")
    prep_train_samples: int = Field(default=128, ge=0, description="questions of prep SFT; no other stage has them")
    eval_samples: int = Field(default=512, ge=1, description="questions of the test part that an evaluation plays")
    num_generations: int = Field(default=8, ge=2, description="GRPO: rollouts of a question")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the slices, of sampling and of training")
    engine: str = Field(default="hf", min_length=1, description="what samples: hf, vllm, or a provider of litellm")
    api_base: str = Field(default="", description="address of an OpenAI-compatible server, for such a provider")
    fallback: bool = Field(
        default=True, description="transformers speaks where vLLM cannot run; announced, and recorded"
    )
    device: Literal["", "cpu", "cuda"] = Field(
        default="", description="where a model runs (hf) and is trained; empty: cuda if there is one"
    )
    dtype: Literal["", "float32", "bfloat16", "float16"] = Field(
        default="", description="of sampling; empty: the device's"
    )
    batch_size: int = Field(default=32, ge=1, description="questions that are played at the same time")
    max_tokens: int = Field(default=512, ge=1, description="of one response")
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of evaluations")
    traces_temperature: float = Field(
        default=0.8, ge=0, allow_inf_nan=False, description="of samples for traces (there --temperature) and exit"
    )
    r1_temperature: float = Field(default=0.7, ge=0, allow_inf_nan=False, description="of a teacher's samples")
    max_attempts: int = Field(
        default=5, ge=1, description="traces, exit: samples of a question, up to the first right one"
    )
    rounds: int = Field(default=3, ge=1, description="exit: of sampling and training")
    epochs: float = Field(default=3.0, gt=0, allow_inf_nan=False, description="SFT: passes over the rows")
    learning_rate: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="SFT; empty: 2e-4 with LoRA, 2e-5 without"
    )
    train_batch_size: int = Field(default=8, ge=1, description="SFT: rows of an optimizer step")
    lora: bool = Field(default=True, description="train an adapter, not the whole model")
    lora_r: int = Field(default=16, ge=1, description="its rank")
    max_length: int | None = Field(default=None, ge=2, description="SFT: tokens of a row; empty: what the model takes")
    save_steps: int = Field(default=20, ge=1, description="a checkpoint every so many steps")
    grpo_steps: int = Field(default=100, ge=1, description="GRPO: rounds of rollouts, an optimizer step each")
    prompts_per_step: int = Field(default=4, ge=1, description="GRPO: questions of a round")
    grpo_learning_rate: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="GRPO; empty: 1e-5 with LoRA, 1e-6 without"
    )
    grpo_temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="GRPO: of its rollouts")

    grpo_rewards: str = Field(
        default="", description="GRPO: NAME=WEIGHT,… beside or instead of score=1,exact_format=0.03; 0 logs one only"
    )
    grpo_kl_beta: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="GRPO: pull towards the model that it began with"
    )
    grpo_loss_type: LossType = Field(default="dapo", description="GRPO: TRL's name of how token losses are averaged")

    @field_validator("grpo_rewards")
    @classmethod
    def _known_rewards(cls, text: str) -> str:
        reward_weights(text)
        return text

    @property
    def suite_suffix(self) -> str:
        return "" if self.prompt_format == "solution" else f"+{self.prompt_format}"

    def train_part(self, mirror: Path | None) -> QuestionSuite:
        return self._part("train", mirror)

    def _part(self, split: str, mirror: Path | None) -> QuestionSuite:
        suite = load(f"{self.suite}:{split}{self.suite_suffix}", mirror_directory(mirror))
        assert isinstance(suite, QuestionSuite)
        return suite

    def prep_questions(self, mirror: Path | None = None) -> QuestionSuite:
        """The first PREP_TRAIN_SAMPLES questions of the seeded order."""
        return self.train_part(mirror).slice(0, self.prep_train_samples, self.seed)

    def train_questions(self, mirror: Path | None = None, count: int | None = None) -> QuestionSuite:
        """The questions behind those of the prep stage: disjoint from them, and a smaller number is in a larger one."""
        start = self.prep_train_samples
        return self.train_part(mirror).slice(start, start + (count or self.train_samples), self.seed)

    def all_train_questions(self, mirror: Path | None = None, count: int | None = None) -> QuestionSuite:
        """Every question of the train part, or the first `count`: those of `train_questions`, prep's at the end."""
        whole = self.train_part(mirror)
        order = whole.slice(0, len(whole.questions), self.seed).questions
        turned = (*order[self.prep_train_samples :], *order[: self.prep_train_samples])
        if (count or 0) > len(turned):
            raise UsageError(f"{whole.name} has {len(turned)} questions, not {count}")
        return replace(whole, questions=turned[:count], slice_of=whole.version)

    def eval_questions(self, mirror: Path | None = None) -> QuestionSuite:
        return self._part("test", mirror).slice(0, self.eval_samples, self.seed)


_ALIASES = {"engine": ("--llm-provider",)}
_SHOWN_FLAGS = {"r1_temperature": "traces --temperature"}
FIELDS: Mapping[str, FieldInfo] = Gsm8kSettings.model_fields


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return name.upper() if name in PLAIN_VARIABLES else f"GSM8K_{name.upper()}"


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def add_setting_flags(made: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """A flag for each of the settings; those that are not given are None."""
    group = made.add_argument_group("settings (repo-agent gsm8k config shows their variables and defaults)")
    for name in dict.fromkeys(names):
        flags = [flag_of(name), *_ALIASES.get(name, ())]
        text = f"{FIELDS[name].description} (default: {_shown(FIELDS[name].default)})".replace("%", "%%")
        if FIELDS[name].annotation is bool:
            group.add_argument(*flags, dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(*flags, dest=name, type=flag_type(name), metavar=_metavar(name), help=text)


def flag_type(name: str) -> Any:
    """For argparse: a setting from its text."""

    def convert(text: str) -> Any:
        try:
            return _value(name, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _value(name: str, text: str) -> Any:
    """A setting from its text; ValueError, in words fit for a user, where it cannot be that."""
    if text == "" and type(None) in get_args(FIELDS[name].annotation):
        return None
    try:
        return getattr(Gsm8kSettings.model_validate({name: text}), name)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"{said[0].lower()}{said[1:]}, not {text!r}") from None


def _metavar(name: str) -> str:
    kind = FIELDS[name].annotation
    if get_origin(kind) is Literal:
        return "{" + ",".join(filter(None, map(str, get_args(kind)))) + "}"
    plain = next(each for each in get_args(kind) if each) if get_origin(kind) in (Union, types.UnionType) else kind
    return {int: "N", float: "X"}.get(plain, "NAME")  # type: ignore[arg-type]


def resolve(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Gsm8kSettings:
    """The settings of a command: its flags, else the environment, else the defaults. An empty variable is not set.

    Raises:
        UsageError: a variable that cannot be read, by its name.
    """
    found: dict[str, Any] = {}
    for name in FIELDS:
        given = None if name == "output_dir" else getattr(args, name, None)
        text = environ.get(variable_of(name))
        if given is not None:
            found[name] = given
        elif text:
            try:
                found[name] = _value(name, text)
            except ValueError as error:
                raise UsageError(f"the environment variable {variable_of(name)}: {error}") from None
    return Gsm8kSettings(**found)


def table() -> str:
    """Markdown: every setting, its variable and its default."""
    rows = [
        (
            f"`{_SHOWN_FLAGS.get(name) or flag_of(name)}`",
            f"`{variable_of(name)}`",
            _shown(field.default),
            field.description,
        )
        for name, field in FIELDS.items()
    ]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(["| flag | variable | default | |", "|---|---|---|---|", *lines])


def _shown(value: object) -> str:
    if value in (None, ""):
        return "empty"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def directory_of(args: argparse.Namespace, settings: Gsm8kSettings, name: str) -> Path:
    """`--output-dir`, or the directory of that name under the root."""
    given: Path | None = args.output_dir
    return given or Path(settings.output_dir) / name


def write_config(directory: Path, stage: str, settings: Gsm8kSettings, **inputs: object) -> None:
    """config.json of a run's directory, which is new, or was made by the same command, or came to nothing.

    Raises:
        UsageError: it belongs to a run with other settings, which are named, or is something else.
    """
    ours = {"stage": stage, **settings.model_dump(mode="json"), **inputs}
    path = directory / CONFIG_FILE
    if path.exists():
        there = _read(path)  # a model has a file of this name too
        if begun(directory):
            _refuse_other(directory, there, ours)
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} holds something else than a run of this command: choose another --output-dir")
    save_config(directory, settings, stage=stage, **inputs)


def save_config(directory: Path, settings: Gsm8kSettings, **inputs: object) -> None:
    """config.json in a directory that is known to be this run's."""
    with atomic_file(directory / CONFIG_FILE) as file:
        content = {**inputs, **settings.model_dump(mode="json")}
        file.write(Redactor()(json.dumps(content, indent=2)).encode() + b"\n")


def check_settings(directory: Path, settings: Gsm8kSettings) -> None:
    """Raises UsageError where a run's directory is of other settings, which are named."""
    ours = settings.model_dump(mode="json")
    there = _read(directory / CONFIG_FILE)
    _refuse_other(directory, {name: there.get(name) for name in ours}, ours)


def _refuse_other(directory: Path, there: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    there, ours = ({name: value for name, value in each.items() if name not in FREE} for each in (there, ours))
    if said := differences(there, ours):
        raise UsageError(f"{directory} belongs to a run with other settings ({said}): choose another directory")


def refuse_unfinished(model: str) -> None:
    """Raises UsageError for the directory of a stage that made no model yet: its config.json is not a model's."""
    directory = Path(model)
    if (directory / CONFIG_FILE).is_file() and not (directory / "result.json").exists():
        try:
            _read(directory / CONFIG_FILE)
        except UsageError:
            return
        raise UsageError(f"{model} holds no model: the stage in it trains none, or has not ended (--resume goes on)")


def made_by(directory: Path, stage: str, flag: str) -> str:
    """The model that an earlier stage has left. Raises UsageError, with what to do, where there is none."""
    if not directory.is_dir():
        raise UsageError(f"{directory} is not there: run `repo-agent gsm8k {stage}` first, or name a model by {flag}")
    return str(directory)


def begun(directory: Path) -> bool:
    """There is something to lose."""
    signs = ("result.json", "traces", "debug", "checkpoints/*/complete", "*/samples_*")
    return any(any(directory.glob(each)) for each in signs)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and "stage" in found:
            return found
    except (OSError, ValueError):
        pass
    raise UsageError(f"{path} is no configuration of this pipeline: choose another --output-dir")
