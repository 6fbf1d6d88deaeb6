"""`repo-agent train dpo`, with real TRL on a model of a few thousand parameters."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from tests.training_world import make_tiny, metrics, pair_row, pair_rows, record, result, step_rows, train, write_rows
from trainers.train_watch import Watch

pytestmark = pytest.mark.slow
FAST = ("--learning-rate", "1e-2", "--lr-scheduler", "constant", "--warmup-ratio", "0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def sft_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sft")
    assert train("sft", tiny, step_rows(place / "rows.jsonl"), place / "run", "--epochs", "4", *FAST) == 0
    return place / "run"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pair_rows(tmp_path_factory.mktemp("rows") / "dpo.jsonl")


def _losses(run: Path) -> list[float]:
    return [line["loss"] for line in metrics(run) if "loss" in line]


def _tensors(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(next(directory.glob("*.safetensors"))))


@pytest.mark.parametrize("packing", ["trie", "none"])
def test_the_adapter_of_an_sft_run_goes_on_being_trained_against_itself(
    sft_run: Path, pairs: Path, tmp_path: Path, packing: str
) -> None:
    assert (
        train(
            "dpo",
            sft_run,
            pairs,
            tmp_path / "r",
            *FAST,
            "--epochs",
            "6",
            "--learning-rate",
            "3e-3",
            "--packing",
            packing,
        )
        == 0
    )
    losses = _losses(tmp_path / "r")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)  # the reference is the SFT model, not its base
    assert losses[-1] < losses[0] - 0.05, losses
    assert metrics(tmp_path / "r")[-1]["rewards/accuracies"] == 1
    assert _tensors(tmp_path / "r/adapter").keys() == _tensors(sft_run / "adapter").keys()
    assert result(tmp_path / "r")["base_model"] == result(sft_run)["base_model"]


@pytest.mark.parametrize("packing", ["trie", "none"])
def test_a_whole_model_is_trained_against_a_frozen_copy(tiny: Path, pairs: Path, tmp_path: Path, packing: str) -> None:
    flags = ["--no-lora", "--learning-rate", "1e-3", "--epochs", "3", "--packing", packing]
    assert train("dpo", tiny, pairs, tmp_path / "r", *flags) == 0
    losses = _losses(tmp_path / "r")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[-1] < losses[0] - 0.05


def test_packed_and_unpacked_training_have_the_same_losses(sft_run: Path, pairs: Path, tmp_path: Path) -> None:
    flags = [*FAST, "--batch-size", "8", "--epochs", "4"]
    assert train("dpo", sft_run, pairs, tmp_path / "packed", *flags) == 0
    assert train("dpo", sft_run, pairs, tmp_path / "plain", *flags, "--packing", "none") == 0
    assert _losses(tmp_path / "packed") == pytest.approx(_losses(tmp_path / "plain"), rel=1e-3, abs=1e-4)
    assert result(tmp_path / "packed")["computed_tokens"] < result(tmp_path / "packed")["tokens"]


def test_pairs_of_an_uneven_last_batch_count_as_much_as_the_others(sft_run: Path, pairs: Path, tmp_path: Path) -> None:
    flags = [*FAST, "--packing", "none"]
    assert train("dpo", sft_run, pairs, tmp_path / "a", *flags, "--batch-size", "8") == 0
    split = ["--batch-size", "3", "--gradient-accumulation", "3"]
    assert train("dpo", sft_run, pairs, tmp_path / "b", *flags, *split) == 0
    assert len(_losses(tmp_path / "b")) == 1
    norms = [metrics(tmp_path / run)[0]["grad_norm"] for run in ("a", "b")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("packing", ["trie", "none"])
def test_a_pair_that_is_a_coin_flip_moves_nothing(sft_run: Path, tmp_path: Path, packing: str) -> None:
    sure = pair_row("t0", 1, pair_confidence=0.9)
    flip = pair_row("t1", 2, pair_confidence=0.5)
    alone = write_rows(tmp_path / "alone.jsonl", [{**sure, "pair_confidence": None}])
    both = write_rows(tmp_path / "both.jsonl", [sure, flip])
    flags = [*FAST, "--batch-size", "2", "--packing", packing]
    assert train("dpo", sft_run, alone, tmp_path / "a", *flags) == 0
    assert train("dpo", sft_run, both, tmp_path / "b", *flags) == 0
    norms = [metrics(tmp_path / run)[0]["grad_norm"] for run in ("a", "b")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert train("dpo", sft_run, both, tmp_path / "c", *flags, "--pair-weights", "none") == 0
    assert metrics(tmp_path / "c")[0]["grad_norm"] != pytest.approx(norms[0], rel=1e-3)


@pytest.mark.parametrize("shape", [["--lora"], ["--no-lora"]])
def test_an_interrupted_run_goes_on_to_the_same_losses_against_the_first_reference(
    sft_run: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: list[str]
) -> None:
    flags = [*shape, "--learning-rate", "1e-3", "--epochs", "3"]
    assert train("dpo", sft_run, pairs, tmp_path / "whole", *flags) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_begin", _interrupt_at_three)
        assert train("dpo", sft_run, pairs, tmp_path / "r", *flags) == 130
    assert len(metrics(tmp_path / "r")) == 4
    assert train("dpo", sft_run, pairs, tmp_path / "r", *flags, "--resume") == 0
    assert metrics(tmp_path / "r") == metrics(tmp_path / "whole")


def _interrupt_at_three(self: Watch, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    if state.global_step == 3:
        signal.raise_signal(signal.SIGINT)


def test_beta_and_loss_reach_the_trainer(sft_run: Path, pairs: Path, tmp_path: Path) -> None:
    flags = ["--loss-type", "hinge", "--beta", "0.2", "--max-steps", "1"]
    assert train("dpo", sft_run, pairs, tmp_path / "r", *flags) == 0
    assert _losses(tmp_path / "r") == [pytest.approx(1.0, abs=1e-4)]
    assert record(tmp_path / "r")["settings"]["beta"] == 0.2


@pytest.mark.parametrize("packing", ["trie", "none"])
def test_sft_on_the_chosen_sides_is_added_to_the_loss(sft_run: Path, pairs: Path, tmp_path: Path, packing: str) -> None:
    flags = ["--max-steps", "1", "--packing", packing, "--pair-weights", "none"]
    for name, weight in (("plain", "0"), ("half", "0.5"), ("whole", "1")):
        assert train("dpo", sft_run, pairs, tmp_path / name, *flags, "--sft-weight", weight) == 0
    plain, half, whole = (_losses(tmp_path / name)[0] for name in ("plain", "half", "whole"))
    assert plain == pytest.approx(math.log(2), abs=1e-4)
    assert half > plain + 0.01
    assert whole - plain == pytest.approx(2 * (half - plain), rel=1e-3)
