"""What all trainings on this machine share, whatever the method: directory, TRL's arguments, the loop, the result."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.adapters import base_of
from harness.errors import UsageError
from harness.model_files import share
from harness.progress import notice
from harness.run_files import now
from trainers.grpo_settings import GrpoSettings
from trainers.train_model import Learner
from trainers.train_run import TrainRun, library_versions
from trainers.train_settings import TrainSettings
from trainers.train_watch import Watch, stop_at_interrupt


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """One process trains in a directory."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"cannot use --output-dir {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UsageError(f"another process trains in {path}") from error
    finally:
        os.close(descriptor)


def about_command(there: Mapping[str, Any] | None, command: str) -> dict[str, Any]:
    said = {"command": command, "time": now(), "versions": library_versions()}
    return {"resumed": [*there.get("resumed", []), said]} if there else said


def shared_arguments(
    run: TrainRun, settings: TrainSettings | GrpoSettings, save_steps: int, report_to: str
) -> dict[str, Any]:
    """Arguments of all TRL's configurations. What they default to is for other uses: bf16, checkpointing, bars."""
    cuda = settings.device == "cuda"
    return {
        "output_dir": str(run.checkpoints),
        "run_name": run.path.name,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler,
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "seed": settings.seed,
        "use_cpu": not cuda,
        "bf16": settings.precision == "bf16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": save_steps,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": "none" if report_to == "tensorboard" else report_to,
    }


def add_tensorboard(trainer: Any, run: TrainRun) -> None:
    """Its files in a folder of their own: by itself it would put them among the checkpoints."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    trainer.add_callback(TensorBoardCallback(SummaryWriter(str(run.path / "tensorboard"))))


class AdapterResumed:
    """A trainer of TRL that keeps a copy of an adapter as its reference; to be put before it."""

    model: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Beside TRL's copy of an adapter transformers 5.19 forgets to load the one that is trained."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)


def packs(settings: TrainSettings | GrpoSettings, learner: Learner, what: str) -> bool:
    """Whether `what`, rows for example, is packed; where the model does not allow it, that is said."""
    if settings.packing == "none":
        return False
    from trainers.trie_packing import why_not

    if reason := why_not(learner.causal_lm):
        notice(f"{what} are not packed: {reason}")
    return not reason


def patched(trainer: Any, packing: bool) -> Any:
    """The models' forwards as the batches need them; the figures of packing, None without it."""
    from trainers.trie_packing import add_row_weights, add_trie_packing

    models = [trainer.model, getattr(trainer, "ref_model", None)]
    bare = [base_of(each) for each in models if each is not None]
    if packing:
        stats = [add_trie_packing(each) for each in bare]
        return stats[0]
    for each in bare:
        add_row_weights(each)
    return None


def train_on(trainer: Any, watch: Watch, checkpoint: Path | None, before: Mapping[str, Any]) -> None:
    trainer.add_callback(watch)
    trainer._total_train_tokens = int(before.get("num_tokens", 0))  # TRL does not keep it
    with watch, stop_at_interrupt(watch):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_model(run: TrainRun, lora: bool, learner: Learner, trainer: Any) -> str:
    """Write the adapter, or the model, with its tokenizer: the name of its directory in the run's."""
    name = run.result_name or ("adapter" if lora else "model")
    only = {"selected_adapters": ["default"]} if lora else {}
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(run.path / name, **only)
    learner.tokenizer.save_pretrained(run.path / name)
    share(run.path / name)
    return name
