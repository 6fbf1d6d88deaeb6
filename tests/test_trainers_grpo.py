"""GRPO inside: rows, masks, rewards and baselines, in real trainings of a few steps on a model of a few thousand
parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

import torch

from harness.records import Score
from sandboxes.base import SandboxError
from suites.gsm8k.environment import QuestionEnvironment
from tests.grpo_world import ARITH, grpo, make_model, minibugs, steps, traces, watched
from trainers.grpo_samplers import HfSampler

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def _rewarded_in_turn(monkeypatch: pytest.MonkeyPatch, *values: float | None) -> None:
    """Questions' scores, in the order in which they are asked for, again and again; None is a broken sandbox."""
    left = itertools.cycle(values)

    def score(self: QuestionEnvironment) -> Score:
        value = next(left)
        if value is None:
            raise SandboxError("it broke")
        return Score(value=value)

    monkeypatch.setattr(QuestionEnvironment, "score", score)


def test_rows_of_several_turns_are_what_was_sampled(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = watched(monkeypatch, "play", lambda trainer, columns: columns)
    assert grpo(tiny, tmp_path / "r", *minibugs(tmp_path)) == 0
    columns = {name: played[0][name] + played[1][name] for name in played[0]}
    stored = traces(tmp_path / "r")
    assert [len(trace.steps) for trace in stored] == [3] * 16
    rows = zip(columns["completion_ids"], columns["logprobs"], columns["env_mask"], stored, strict=True)
    for ids, logprobs, mask, trace in rows:
        said = [step.completion for step in trace.steps]
        assert list(itertools.compress(ids, mask)) == [each for one in said for each in one.token_ids or ()]
        assert list(itertools.compress(logprobs, mask)) == [each for one in said for each in one.logprobs or ()]
        assert 0 in mask


def test_the_sampler_and_the_trainer_give_the_same_log_probabilities(tiny: Path, tmp_path: Path) -> None:
    assert grpo(tiny, tmp_path / "r", *minibugs(tmp_path), "--num-workers", "4") == 0
    assert all(line["sampler_gap/max"] < 1e-4 for line in steps(tmp_path / "r"))


@pytest.mark.parametrize("of", ["logits", "hidden states"])
def test_the_gradient_is_exactly_0_wherever_the_target_is_prompt_or_tool_text(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """Of the logits, where a plain head makes them; TRL's fused one makes none, and the last hidden states before it
    have a gradient where the logits would have one.
    """
    from trainers.grpo import EpisodeTrainer

    kept: dict[str, Any] = {}

    def keep(module: Any, args: Any, output: Any) -> None:
        kept["hidden states"] = output
        output.retain_grad()

    def from_logits(self: Any, model: Any, ids: Any, mask: Any, count: int, **rest: Any) -> tuple[Any, Any, Any]:
        kept["logits"] = model(input_ids=ids, attention_mask=mask).logits
        kept["logits"].retain_grad()
        logps = (kept["logits"][:, :-1] / self.temperature).log_softmax(-1)
        targets = logps.gather(-1, ids[:, 1:, None]).squeeze(-1)
        return targets[:, -count:], torch.zeros_like(targets[:, -count:]), None

    def gradient(trainer: Any, loss: Any, model: Any, inputs: Any) -> tuple[Any, Any]:
        hook = model.get_base_model().model.norm.register_forward_hook(keep)
        with monkeypatch.context() as patch:
            if of == "logits":
                patch.setattr(EpisodeTrainer, "_get_per_token_logps_and_entropies", from_logits)
            advantages = torch.linspace(-1, 1, len(inputs["advantages"]))
            inner(trainer, model, {**inputs, "advantages": advantages}).backward()
        hook.remove()
        model.zero_grad()
        mine = torch.cat([inputs["prompt_mask"] * 0, inputs["completion_mask"] * inputs["tool_mask"]], dim=1)
        return kept[of].grad, torch.nn.functional.pad(mine[:, 1:], (0, 1)).bool()

    inner = EpisodeTrainer._compute_loss
    seen = watched(monkeypatch, "_compute_loss", gradient)
    assert grpo(tiny, tmp_path / "r", *minibugs(tmp_path), "--max-steps", "1", "--packing", "none") == 0
    for gradients, predicts_mine in seen:
        size = gradients.abs().sum(-1)
        assert predicts_mine.any() and not predicts_mine.all()
        assert (size[~predicts_mine] == 0).all()
        assert (size[predicts_mine] > 0).all()


def test_a_rollout_that_the_infrastructure_spoilt_leaves_its_groups_baseline(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewarded_in_turn(monkeypatch, 1.0, None, 0.0, 0.0)
    rounds = watched(monkeypatch, "_generate_and_score_completions", lambda trainer, output, inputs: output)
    flags = ("--reward-weight", "exact_format=0", "--max-steps", "1")
    assert grpo(tiny, tmp_path / "r", *ARITH, *flags) == 0
    baseline, spread = 1 / 3, float(torch.tensor([1.0, 0.0, 0.0]).std()) + 1e-4
    group = [(1 - baseline) / spread, 0.0, -baseline / spread, -baseline / spread]
    assert rounds[0]["advantages"].tolist() == pytest.approx(group * 2, abs=1e-5)
    assert rounds[0]["tool_mask"].any(dim=1).tolist() == [True, False, True, True] * 2
    (line,) = steps(tmp_path / "r")
    assert (line["rollouts/unscored"], line["rewards/score/mean"]) == (2, pytest.approx(1 / 3))


def test_a_round_that_was_spoilt_altogether_changes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewarded_in_turn(monkeypatch, None)
    assert grpo(tiny, tmp_path / "r", *ARITH, "--max-steps", "1", "--prompts-per-step", "1") == 0
    (line,) = steps(tmp_path / "r")
    assert (line["reward"], line["grad_norm"], line["rollouts/unscored"]) == (None, 0, 4)


def test_too_many_spoilt_rollouts_in_a_row_stop_the_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _rewarded_in_turn(monkeypatch, None)
    assert grpo(tiny, tmp_path / "r", *ARITH) == 3
    assert "STOPPED: 5 rollouts in a row failed: SandboxError: it broke" in capsys.readouterr().err


def test_episodes_in_which_nothing_could_be_said_are_trained_on_without_effect(tiny: Path, tmp_path: Path) -> None:
    assert grpo(tiny, tmp_path / "r", *ARITH, "--max-context", "5") == 0
    assert [trace.stop for trace in traces(tmp_path / "r")] == ["context_full"] * 16
    for line in steps(tmp_path / "r"):
        assert (line["grad_norm"], line["rollouts/truncated"], line["rollouts/turns"]) == (0, 1, 0)


def test_an_episode_that_ends_on_a_tool_result_is_not_truncated(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.policies.hf_policy import Batch

    monkeypatch.setattr(Batch, "sample", _stop_at_once)
    assert grpo(tiny, tmp_path / "r", *minibugs(tmp_path), "--max-steps", "1") == 0
    assert {trace.stop for trace in traces(tmp_path / "r")} == {"max_iters"}
    (line,) = steps(tmp_path / "r")
    assert (line["rollouts/truncated"], line["completions/clipped_ratio"]) == (0, 0)


def _stop_at_once(self: Any, logits: Any) -> Any:
    chosen = torch.full((len(logits),), int(self.stop[0]))
    self.logprobs.append((logits / self.divisor).log_softmax(-1)[:, chosen[0]])
    return chosen


@pytest.mark.parametrize(("choice", "learns"), [("count", True), ("mask", False)])
def test_truncated_rollouts_are_counted_or_masked(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str, learns: bool
) -> None:
    _rewarded_in_turn(monkeypatch, 1.0, 0.0)
    assert grpo(tiny, tmp_path / "r", *ARITH, "--max-steps", "1", "--truncated", choice) == 0
    (line,) = steps(tmp_path / "r")
    assert line["rollouts/truncated"] == 1
    assert (line["grad_norm"] > 0) == learns


def test_a_sampler_with_other_weights_stops_the_training(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = HfSampler.speaking

    @contextmanager
    def stale(self: HfSampler, network: Any) -> Iterator[None]:
        with inner(self, network):
            for weight in network.parameters():
                weight.data.mul_(1.5)
            yield
            for weight in network.parameters():
                weight.data.div_(1.5)

    monkeypatch.setattr(HfSampler, "speaking", stale)
    assert grpo(tiny, tmp_path / "r", *ARITH) == 3
    assert "step 0: the sampler does not speak with the trained weights" in capsys.readouterr().err


def test_what_is_rewarded_becomes_likelier(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: QuestionEnvironment) -> Score:
        assert self._said
        return Score(value=float(len(self._said.token_ids or ()) < 12))

    monkeypatch.setattr(QuestionEnvironment, "score", short)
    flags = ("--no-lora", "--max-steps", "30", "--num-generations", "8", "--num-workers", "16")
    assert grpo(tiny, tmp_path / "r", *ARITH, *flags) == 0
    lines = steps(tmp_path / "r")
    assert sum(line["reward"] for line in lines[-5:]) > sum(line["reward"] for line in lines[:5]) + 1
