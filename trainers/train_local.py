"""A training on this machine, from the flags to the result: `repo-agent train sft` and `train dpo`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model_files import files_sha256
from harness.progress import notice
from harness.run_files import NOTHING_TO_RESUME
from trainers.card import file_sha256
from trainers.full_disk import disk_in_words
from trainers.train_data import Forest, packed_forest, plain_forest
from trainers.train_model import Learner, device_name, device_of, load_learner, load_tokenizer, locate
from trainers.train_rows import Row, TrainRows, read_rows
from trainers.train_run import TrainRun, data_record
from trainers.train_settings import Kind, TrainSettings, local_arguments, settings_of
from trainers.train_shared import (
    about_command,
    add_tensorboard,
    owned,
    packs,
    patched,
    save_model,
    shared_arguments,
    train_on,
)
from trainers.train_watch import Diverged, Watch, memory_in_words


@dataclass(frozen=True)
class _Data:
    train: TrainRows
    test: TrainRows | None


@dataclass(frozen=True)
class _Batches:
    """How the rows go through the model."""

    train: Forest
    test: Forest | None
    size: int
    """Rows that were asked for, or found to fit."""


def run_local(
    kind: Kind, flags: argparse.Namespace, command: str, say: Callable[[str], None], result_name: str = ""
) -> int:
    """Train, and `say` where the result is (`result_name`: see TrainRun).

    0: done, or done before; 1: the loss became no number; 130: interrupted, and can be resumed.

    Raises:
        UsageError: bad input.
    """
    args = local_arguments(kind, flags)
    run = TrainRun(_directory(args), result_name)
    settings = _settings(kind, args)
    with owned(run.path), memory_in_words(settings, _to_lower(settings)), disk_in_words(run.path):
        there = run.claim(settings, args.resume)
        if args.resume and there is None:
            notice(NOTHING_TO_RESUME)
        if there and (result := run.result()):
            say(f"this training has ended before. {_result_text(run, result)}")
            return 0
        try:
            ended = _train(run, settings, args, {**(there or {}), **about_command(there, command)})
        except Diverged as error:
            notice(f"error: {error}: lower --learning-rate; nothing was saved after the last checkpoint in {run.path}")
            return 1
    if ended is None:
        place = "" if args.output_dir or args.suffix else f" --output-dir {shlex.quote(str(run.path))}"
        notice(f"interrupted: the same command with --resume{place} goes on")
        return 130
    say(_result_text(run, ended))
    return 0


def _directory(args: argparse.Namespace) -> Path:
    if args.output_dir is not None:
        return Path(args.output_dir)
    if args.resume and not args.suffix:
        raise UsageError("--resume needs --output-dir, the run to continue")
    if "/" in args.suffix:
        raise UsageError(f"--suffix {args.suffix}: it names a directory in runs/, without /")
    return Path("runs") / f"train-{args.suffix or format(datetime.now(UTC), '%Y%m%d-%H%M%S')}"


def _settings(kind: Kind, args: argparse.Namespace) -> TrainSettings:
    files = locate(args.model)
    device, precision = device_of(args.device)
    if args.gradient_checkpointing is None:
        args.gradient_checkpointing = device == "cuda"
    args.model, args.device = str(files.adapter or files.base), device
    return settings_of(
        kind,
        args,
        model_sha256=files_sha256(files),
        dataset_sha256=file_sha256(args.dataset),
        eval_dataset_sha256=file_sha256(args.eval_dataset) if args.eval_dataset else None,
        precision=precision,
    )


def _train(
    run: TrainRun, settings: TrainSettings, args: argparse.Namespace, record: dict[str, Any]
) -> dict[str, Any] | None:
    """The result, None where the training was interrupted."""
    files = locate(settings.model)
    chat = load_tokenizer(files)
    learner = load_learner(files, chat, settings)
    data = _read(args, settings, learner)
    packing = packs(settings, learner, "rows")
    found = record.get("batches", {}).get("batch_size")
    batches = _batches(settings, data, packing, found or (1 if settings.batch_size == "max" else settings.batch_size))
    described = {**record, **_record(settings, data)}
    known = {"batches": _figures(batches, packing)} if settings.batch_size != "max" or found else {}
    run.write_record({**described, **known})
    checkpoint = run.last_checkpoint()
    before = run.cut_metrics(int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    watch = Watch(run, before)
    trainer = _trainer(run, settings, args, learner, batches)
    if settings.batch_size == "max" and not found:
        batches = _largest(trainer, settings, data, packing)
        run.write_record({**described, "batches": _figures(batches, packing)})
    _say_plan(data, batches, packing, settings)
    watch.packing = patched(trainer, packing)
    train_on(trainer, watch, checkpoint, before)
    if trainer.state.global_step < trainer.state.max_steps:
        return None
    return _finish(run, settings, learner, trainer, data, watch)


def _to_lower(settings: TrainSettings) -> str:
    """What to lower where memory is too small."""
    packed = f"--max-packed-tokens (now {settings.max_packed_tokens}), " if settings.packing == "trie" else ""
    batch = f"--batch-size (now {settings.batch_size}; --gradient-accumulation makes up for it)"
    return f"{batch}, {packed}--max-length"


def _read(args: argparse.Namespace, settings: TrainSettings, learner: Learner) -> _Data:
    limit = learner.max_positions
    if limit and settings.max_length and settings.max_length > limit:
        raise UsageError(f"--max-length {settings.max_length}: the model takes {limit} tokens")
    longest = settings.max_length or limit or 2**31

    def read(path: Path) -> TrainRows:
        refuse, weigh = settings.over_length == "refuse", settings.pair_weights == "confidence"
        return read_rows(path, settings.kind, learner.chat, longest, refuse, weigh)

    return _Data(read(args.dataset), read(args.eval_dataset) if args.eval_dataset else None)


def _batches(settings: TrainSettings, data: _Data, packing: bool, size: int) -> _Batches:
    def forest(rows: tuple[Row, ...]) -> Forest:
        return packed_forest(rows, size, settings.max_packed_tokens) if packing else plain_forest(rows, size)

    return _Batches(forest(data.train.rows), forest(data.test.rows) if data.test else None, size)


def _trainer(
    run: TrainRun, settings: TrainSettings, args: argparse.Namespace, learner: Learner, batches: _Batches
) -> Any:
    common = _common(run, settings, args, batches)
    if settings.kind == "sft":
        from trainers.sft import sft_trainer

        trainer = sft_trainer(learner, common, batches.train, batches.test)
    else:
        from trainers.dpo import dpo_trainer

        trainer = dpo_trainer(learner, settings, common, batches.train, batches.test)
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if args.report_to == "tensorboard":
        add_tensorboard(trainer, run)
    return trainer


def _common(run: TrainRun, settings: TrainSettings, args: argparse.Namespace, batches: _Batches) -> dict[str, Any]:
    return {
        **shared_arguments(run, settings, args.save_steps, args.report_to),
        "per_device_train_batch_size": batches.train.trees_per_batch,
        "per_device_eval_batch_size": batches.test.trees_per_batch if batches.test else 1,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "eval_strategy": "epoch" if batches.test else "no",
    }


def _largest(trainer: Any, settings: TrainSettings, data: _Data, packing: bool) -> _Batches:
    """The batches of the largest size that fits, given to the trainer."""
    from trainers.train_batch import largest_batch

    size = largest_batch(trainer, data.train.rows, trainer.data_collator)
    notice(f"--batch-size max: {size} of the longest rows fit in one batch")
    found = _batches(settings, data, packing, size)
    trainer.train_dataset = found.train.dataset()
    trainer.args.per_device_train_batch_size = found.train.trees_per_batch
    trainer._train_batch_size = trainer.args.train_batch_size
    if found.test:
        trainer.eval_dataset = found.test.dataset(len(found.train.rows))
        trainer.args.per_device_eval_batch_size = found.test.trees_per_batch
    return found


def _say_plan(data: _Data, batches: _Batches, packing: bool, settings: TrainSettings) -> None:
    rows, forest = data.train, batches.train
    dropped = f" ({rows.dropped} longer than allowed were left out)" if rows.dropped else ""
    trees = f" in {len(forest.trees)} packed trees" if packing else ""
    unit = "rows" if settings.kind == "sft" else "pairs"
    rows_per_step = forest.rows_per_batch * settings.gradient_accumulation
    batch = f"{forest.rows_per_batch:.3g} a batch, {rows_per_step:.3g} a step"
    notice(f"{len(rows.rows)} {unit}{dropped}, {rows.tokens:,} tokens{trees}; {batch}; {settings.device}")


def _record(settings: TrainSettings, data: _Data) -> dict[str, Any]:
    test = data_record(data.test, settings.eval_dataset_sha256 or "") if data.test else None
    return {
        "kind": settings.kind,
        "settings": settings.model_dump(mode="json"),
        "device": device_name(settings.device),
        "data": data_record(data.train, settings.dataset_sha256),
        "eval_data": test,
    }


def _figures(batches: _Batches, packing: bool) -> dict[str, Any]:
    return {
        "batch_size": batches.size,
        "packed": packing,
        "trees": len(batches.train.trees),
        "trees_per_batch": batches.train.trees_per_batch,
        "rows_per_batch": batches.train.rows_per_batch,
    }


def _finish(
    run: TrainRun, settings: TrainSettings, learner: Learner, trainer: Any, data: _Data, watch: Watch
) -> dict[str, Any]:
    """Save the result, and then say that it is there."""
    name = save_model(run, settings.lora, learner, trainer)
    lines = list(run.metric_lines())
    last = [line for line in lines if "loss" in line][-1]
    result = {
        "kind": settings.kind,
        "backend": "local",
        "base_model": learner.files.base,
        "adapter": name if settings.lora else None,
        "model": None if settings.lora else name,
        "steps": trainer.state.global_step,
        "rows": len(data.train.rows),
        "tokens": int(last["num_tokens"]),
        "computed_tokens": lines[-1].get("computed_tokens"),
        "seconds": round(watch.seconds, 1),
        "final_loss": last["loss"],
    }
    run.write_result(result)
    return result


def _result_text(run: TrainRun, result: Mapping[str, Any]) -> str:
    place = shlex.quote(str(run.path))
    done = f"{result['steps']} steps, last loss {result['final_loss']:.4g}: {run.path}"
    return f"{done}\n  repo-agent eval --llm-provider hf --model {place} --suite eval/suites/quixbugs_test_suite.json"
