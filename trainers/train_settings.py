"""The settings of a local training: the flags, their defaults, and the record of what decides the result."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from harness.cli import amount, at_least
from harness.errors import UsageError
from harness.records import Record

Kind = Literal["sft", "dpo"]
LOSSES = ("sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sppo_hard", "nca_pair", "sigmoid_norm")
"""TRL's losses that weigh each pair by itself and need no other setting."""
SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
REPORTERS = ("none", "tensorboard", "wandb", "trackio")
_LEARNING_RATES = {("sft", True): 2e-4, ("sft", False): 2e-5, ("dpo", True): 2e-5, ("dpo", False): 1e-6}
_EPOCHS = {"sft": 3.0, "dpo": 1.0}


class TrainSettings(Record):
    """What decides the result of a training. Runs with equal settings may be continued."""

    kind: Kind
    model: str
    """A directory as an absolute path, or a name on the hub."""
    model_sha256: str | None
    """Of the files there, an adapter's base included; None for a name on the hub."""
    dataset_sha256: str
    eval_dataset_sha256: str | None
    epochs: float
    max_steps: int | None
    batch_size: int | Literal["max"]
    """Rows per micro-batch; with packing on average."""
    gradient_accumulation: int
    learning_rate: float
    lr_scheduler: str
    warmup_ratio: float
    weight_decay: float
    lora: bool
    lora_r: int
    lora_alpha: float
    lora_dropout: float
    lora_targets: str
    max_length: int | None
    """None: what the model takes."""
    over_length: Literal["drop", "refuse"]
    packing: Literal["trie", "none"]
    max_packed_tokens: int
    seed: int
    device: str
    precision: Literal["bf16", "float32"]
    gradient_checkpointing: bool
    beta: float | None = None
    loss_type: str | None = None
    pair_weights: Literal["confidence", "none"] | None = None
    sft_weight: float | None = None
    """Of the chosen sides' mean negative log-probability per token, beside the loss of the pairs."""


def add_train_flags(made: argparse.ArgumentParser, kind: Kind) -> None:
    """Flags that mean nothing to a service have no default here, so that it is seen whether they were given."""
    made.add_argument("--dataset", type=Path, required=True, help="JSONL file of rows (docs/data.md)")
    made.add_argument("--model", default="", help="directory, training run or adapter, or name on the Hugging Face hub")
    made.add_argument("--output-dir", type=Path, help="the run's directory (default: runs/train-SUFFIX or -DATE)")
    made.add_argument("--suffix", default="", help="what the run, or the service's model, is called")
    made.add_argument("--resume", action="store_true", help="go on where the run in --output-dir was interrupted")
    made.add_argument("--seed", type=_seed, default=0, help="of adapters and of the order (default: 0)")
    _add_steps(made.add_argument_group("steps"), kind)
    _add_lora(made.add_argument_group("what is trained"))
    if kind == "dpo":
        _add_preference(made.add_argument_group("preference"))
    _add_rows(made.add_argument_group("rows and packing"))
    _add_local(made.add_argument_group("this machine"))


def _add_steps(group: Any, kind: Kind) -> None:
    group.add_argument(
        "--epochs", type=_positive, default=_EPOCHS[kind], help=f"passes over the data (default: {_EPOCHS[kind]:g})"
    )
    group.add_argument("--max-steps", type=at_least(1), help="end after so many optimizer steps")
    group.add_argument(
        "--batch-size", type=_batch_size, help="rows (pairs) at once, or max: as many as fit (default: 8)"
    )
    group.add_argument("--gradient-accumulation", type=at_least(1), help="batches of one optimizer step (default: 1)")
    rates = f"{_LEARNING_RATES[kind, True]:g} with LoRA, {_LEARNING_RATES[kind, False]:g} without"
    group.add_argument("--learning-rate", type=_positive, help=f"(default: {rates})")
    group.add_argument("--lr-scheduler", choices=SCHEDULERS, help="(default: linear, down to 0)")
    group.add_argument("--warmup-ratio", type=_share, help="share of the steps (default: 0.03)")
    group.add_argument("--weight-decay", type=amount, help="(default: 0)")


def _add_lora(group: Any) -> None:
    group.add_argument("--lora", action=argparse.BooleanOptionalAction, default=True, help="an adapter (default)")
    group.add_argument("--lora-r", type=at_least(1), help="rank (default: 16)")
    group.add_argument("--lora-alpha", type=_positive, help="(default: 32)")
    group.add_argument("--lora-dropout", type=_share, help="(default: 0)")
    group.add_argument("--lora-targets", help="names of linear layers, with commas (default: all-linear)")


def _add_preference(group: Any) -> None:
    group.add_argument("--beta", type=_positive, default=0.1, help="pull towards the reference (default: 0.1)")
    group.add_argument("--loss-type", choices=LOSSES, help="TRL's name (default: sigmoid)")
    group.add_argument(
        "--sft-weight", type=amount, help="of SFT on the chosen side, added to the loss: holds it likely (default: 0)"
    )
    group.add_argument(
        "--pair-weights", choices=("confidence", "none"), help="how much a pair counts (default: confidence)"
    )


def _add_rows(group: Any) -> None:
    group.add_argument("--eval-dataset", type=Path, help="rows whose loss is measured after each epoch")
    group.add_argument("--max-length", type=at_least(2), help="tokens of a row (default: what the model takes)")
    group.add_argument("--over-length", choices=("drop", "refuse"), help="longer rows (default: drop them, and say so)")
    group.add_argument(
        "--packing", choices=("trie", "none"), help="trie: common prefixes are computed once, same loss (default: trie)"
    )
    group.add_argument("--max-packed-tokens", type=at_least(2), help="of rows packed together (default: 16384)")


def _add_local(group: Any) -> None:
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    group.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="less memory, more time (default: on CUDA)",
    )
    group.add_argument("--save-steps", type=at_least(1), help="a checkpoint every N steps (default: 100)")
    group.add_argument(
        "--report-to", choices=REPORTERS, help="beside metrics.jsonl (default: tensorboard if installed)"
    )


LOCAL_DEFAULTS: dict[str, Any] = {
    "max_steps": None,
    "gradient_accumulation": 1,
    "lr_scheduler": "linear",
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "lora_dropout": 0.0,
    "lora_targets": "all-linear",
    "pair_weights": "confidence",
    "loss_type": "sigmoid",
    "sft_weight": 0.0,
    "eval_dataset": None,
    "max_length": None,
    "over_length": "drop",
    "packing": "trie",
    "max_packed_tokens": 16384,
    "device": "auto",
    "gradient_checkpointing": None,
    "save_steps": 100,
    "report_to": None,
}
"""Of the flags that mean nothing to a service."""
_SHARED_DEFAULTS: dict[str, Any] = {"batch_size": 8, "lora_r": 16, "lora_alpha": 32.0}


def local_arguments(kind: Kind, args: argparse.Namespace) -> argparse.Namespace:
    """The flags with the defaults of a local training.

    Raises:
        UsageError: a reporter that is not installed.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    filled = argparse.Namespace(**{**vars(args), **LOCAL_DEFAULTS, **_SHARED_DEFAULTS, **given})
    filled.learning_rate = learning_rate(kind, args)
    filled.report_to = reporter(filled.report_to)
    return filled


def reporter(asked: str | None) -> str:
    """Raises UsageError for one that is not installed."""
    if asked is None:
        return "tensorboard" if find_spec("tensorboard") else "none"
    if asked != "none" and find_spec(asked) is None:
        raise UsageError(f"--report-to {asked}: it is not installed (pip install {asked})")
    return asked


def learning_rate(kind: Kind, args: argparse.Namespace) -> float:
    return float(args.learning_rate or _LEARNING_RATES[kind, args.lora])


def settings_of(kind: Kind, args: argparse.Namespace, **found: Any) -> TrainSettings:
    """The record of filled flags; `found`: what the flags do not say, such as digests and the device."""
    names = TrainSettings.model_fields.keys() & vars(args).keys()
    only_dpo = {"beta", "loss_type", "pair_weights", "sft_weight"} if kind == "sft" else set()
    return TrainSettings(**{**{name: getattr(args, name) for name in names - only_dpo}, "kind": kind, **found})


def _positive(text: str) -> float:
    value = amount(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _share(text: str) -> float:
    value = amount(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"must be less than 1, not {text}")
    return value


def _seed(text: str) -> int:
    """What numpy takes."""
    value = at_least(0)(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"must be less than 2**32, not {text}")
    return value


def _batch_size(text: str) -> int | Literal["max"]:
    return "max" if text == "max" else at_least(1)(text)
