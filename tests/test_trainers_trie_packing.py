"""Packed and separate sequences: the same losses and the same gradients, through TRL's own trainers.

TRL's head computes log-probabilities in float32 whatever the model's type. So what is compared to 1e-12 is the model's
part in float64, with a plain head; through TRL the tolerances are 2e-6 for float32 losses, relatively, and 1e-5 for
gradients (the norm of a parameter's difference to that of its gradient).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("trl", reason="needs the extra 'train'")

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from tests.trl_trainers import (
    Pair,
    Rows,
    adapted,
    difference,
    dpo_batch,
    dpo_trainer,
    forest,
    gradients,
    moved,
    qwen2,
    sft_batch,
    sft_trainer,
    siblings,
    step_rows,
    tokens,
)
from trainers.trie import build_trie
from trainers.trie_attention import CHAINS
from trainers.trie_packing import add_row_weights, add_trie_packing, pack, packed_inputs, row_log_probs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The tokenized prompt is not a prefix"),
]
LOSS, GRADIENTS, EXACT = 2e-6, 1e-5, 1e-12


def pairs() -> list[Pair]:
    whole = tokens(90, 0)
    return [(whole[:at], whole[at : at + 6], tokens(4 + at % 5, at)) for at in (20, 31, 45, 60, 72)]


def llama() -> Any:
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "initializer_range": 0.3}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def lora() -> Any:
    return moved(adapted(qwen2()))


def base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def fused(model: Any) -> Any:
    add_fused_lm_head(base(model), outputs=("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"))
    return model


def summed_loss(model: Any, rows: Rows) -> tuple[float, dict[str, Any]]:
    """Over separate sequences of batch size one, without padding: what packing must equal."""
    total = 0.0
    for row in rows:
        out = model(**sft_batch([row]), use_cache=False, fused_lm_head=True)
        (-out.log_probs.sum()).backward()
        total -= float(out.log_probs.detach().double().sum())
    return total, gradients(model)


def packed_loss(model: Any, rows: Rows) -> tuple[float, dict[str, Any]]:
    out = model(**sft_batch(rows), use_cache=False, fused_lm_head=True)
    (-out.log_probs.sum()).backward()
    return -float(out.log_probs.detach().double().sum()), gradients(model)


def assert_same(one: tuple[float, dict[str, Any]], other: tuple[float, dict[str, Any]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=LOSS)
    assert difference(one[1], other[1]) < GRADIENTS


@pytest.mark.parametrize("make", [qwen2, llama, lora])
@pytest.mark.parametrize("rows", [step_rows, siblings, forest])
def test_summed_loss_and_gradients_equal_those_of_separate_sequences(
    make: Callable[[], Any], rows: Callable[[], Rows]
) -> None:
    packed = fused(make())
    stats = add_trie_packing(base(packed))
    assert_same(packed_loss(packed, rows()), summed_loss(fused(make()), rows()))
    assert stats.packed_batches == 1
    assert stats.computed_tokens == len(build_trie([row for row, _ in rows()])) < stats.row_tokens


@pytest.mark.parametrize("make", [qwen2, llama, lora])
@pytest.mark.parametrize("rows", [step_rows, siblings, forest])
def test_in_float64_the_models_part_is_exact(make: Callable[[], Any], rows: Callable[[], Rows]) -> None:
    one, other = in_float64(make()), in_float64(make())
    base(one).set_attn_implementation(CHAINS)
    batch = sft_batch(rows())
    packed = pack(**batch)
    assert packed
    inputs = packed_inputs(packed, torch.device("cpu"))
    hidden = base(one).base_model(**inputs, use_cache=False).last_hidden_state[0, inputs["trie"].predictors]
    targets = batch["labels"][:, 1:][batch["labels"][:, 1:] != -100]
    together = plain_loss(base(one), hidden, targets)
    together.backward()
    apart = torch.zeros((), dtype=torch.float64)
    for row, trained in rows():
        first = max(len(row) - trained, 1)
        states = base(other).base_model(torch.tensor([row]), use_cache=False).last_hidden_state[0, first - 1 : -1]
        apart = apart + plain_loss(base(other), states, torch.tensor(row[first:]))
    apart.backward()
    assert together.item() == pytest.approx(apart.item(), rel=EXACT)
    assert difference(gradients(one), gradients(other)) < EXACT


def in_float64(model: Any) -> Any:
    """In all its parts: transformers' norms work in float32 whatever the model's type."""
    for module in list(model.modules()):
        for name, norm in list(module.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                setattr(module, name, torch.nn.RMSNorm(norm.weight.shape, norm.variance_epsilon))
    return model.double()


def plain_loss(model: Any, hidden: Any, targets: Any) -> Any:
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), targets, reduction="sum")


@pytest.mark.parametrize("rows", [step_rows, siblings])
def test_sft_trainers_loss_gradients_and_metrics_are_the_same(rows: Callable[[], Rows], tmp_path: Path) -> None:
    seen = []
    for packing in (True, False):
        trainer = sft_trainer(qwen2(), tmp_path)
        if packing:
            stats = add_trie_packing(trainer.model)
        loss = trainer.compute_loss(trainer.model, sft_batch(rows()), num_items_in_batch=37)
        loss.backward()
        seen.append((float(loss.detach()), gradients(trainer.model), dict(trainer._metrics["train"])))
    assert_same(seen[0][:2], seen[1][:2])
    for name, values in seen[0][2].items():
        assert values == pytest.approx(seen[1][2][name], rel=1e-5, abs=1e-6), name
    assert stats.packed_batches == 1


def test_a_whole_training_run_logs_the_same_losses(tmp_path: Path) -> None:
    """Through accelerate, with accumulated gradients and a normaliser over the accumulated batches."""
    settings: dict[str, Any] = {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 2}
    settings |= {"num_train_epochs": 3, "logging_steps": 1, "save_strategy": "no"}
    logged = []
    for packing in (True, False):
        trainer = sft_trainer(
            qwen2(), tmp_path, step_rows(), {**settings, "save_strategy": "no", "num_train_epochs": 3}
        )
        if packing:
            stats = add_trie_packing(trainer.model)
        trainer.train()
        logged.append([each["loss"] for each in trainer.state.log_history if "loss" in each])
    assert logged[0] == pytest.approx(logged[1], rel=1e-4)
    assert (len(logged[0]), stats.packed_batches) == (3, 6)


DPO_SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "ipo": {"loss_type": ["ipo"]},
    "weighted": {"use_weighting": True},
    "length-desensitised": {"ld_alpha": 0.5},
    "with sft": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
}


def policy_trainer(directory: Path, settings: dict[str, Any] | None = None) -> Any:
    trainer = dpo_trainer(adapted(qwen2()), directory, settings)
    moved(trainer.model)
    return trainer


@pytest.mark.parametrize("settings", DPO_SETTINGS.values(), ids=DPO_SETTINGS)
def test_dpo_trainers_loss_gradients_and_metrics_are_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    seen = []
    for packing in (True, False):
        trainer = policy_trainer(tmp_path, settings)
        if packing:
            stats = add_trie_packing(base(trainer.model))
        loss = trainer.compute_loss(trainer.model, dpo_batch(pairs()))
        loss.backward()
        seen.append((float(loss.detach()), gradients(trainer.model), dict(trainer._metrics["train"])))
    assert_same(seen[0][:2], seen[1][:2])
    for name, values in seen[0][2].items():
        assert values == pytest.approx(seen[1][2][name], rel=1e-5, abs=1e-5), name
    assert abs(seen[0][2]["rewards/margins"][0]) > 0.01, "the policy is not its reference"
    assert stats.packed_batches == 2, "the policy and its reference"


def test_a_reference_model_of_its_own_is_packed_too(tmp_path: Path) -> None:
    losses = []
    for packing in (True, False):
        trainer = dpo_trainer(qwen2(), tmp_path, ref_model=qwen2(seed=1))
        if packing:
            reference = add_trie_packing(trainer.ref_model)
            add_trie_packing(trainer.model)
        losses.append(float(trainer.compute_loss(trainer.model, dpo_batch(pairs())).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=LOSS)
    assert reference.packed_batches == 1


@pytest.mark.parametrize("packing", [True, False])
def test_row_weights_scale_each_pairs_gradient_and_not_the_loss(packing: bool, tmp_path: Path) -> None:
    weights = [0.5, 1.0, 0.0, 2.0, 0.25]
    trainer = policy_trainer(tmp_path)
    (add_trie_packing if packing else add_row_weights)(base(trainer.model))
    batch = {**dpo_batch(pairs()), "row_weights": torch.tensor(weights * 2)}
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    plain = policy_trainer(tmp_path)
    expected = plain.compute_loss(plain.model, dpo_batch(pairs()))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=LOSS)
    for pair, weight in zip(pairs(), weights, strict=True):
        (weight / 5 * plain.compute_loss(plain.model, dpo_batch([pair]))).backward()
    assert difference(gradients(trainer.model), gradients(plain.model)) < GRADIENTS


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = fused(qwen2())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    stats = add_trie_packing(model)
    assert_same(packed_loss(model, siblings()), summed_loss(fused(qwen2()), siblings()))
    assert stats.packed_batches == 1


def test_under_bfloat16_autocast_the_loss_is_as_near_as_bfloat16_allows() -> None:
    packed, apart = fused(qwen2(initializer_range=0.05)), fused(qwen2(initializer_range=0.05))
    add_trie_packing(packed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = packed_loss(packed, step_rows()), summed_loss(apart, step_rows())
    assert one[0] == pytest.approx(other[0], rel=5e-3)
    assert difference(one[1], other[1]) < 0.05


def test_a_disabled_adapter_gives_the_base_models_values() -> None:
    model = fused(lora())
    add_trie_packing(base(model))
    rows = siblings()
    with torch.no_grad(), model.disable_adapter():
        values = model(**sft_batch(rows), use_cache=False, fused_lm_head=True).log_probs
    expected = fused(qwen2())(**sft_batch(rows), use_cache=False, fused_lm_head=True).log_probs
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


def test_every_field_of_trls_output_is_where_trl_puts_it() -> None:
    packed, plain = fused(qwen2()), fused(qwen2())
    add_trie_packing(packed)
    one, other = (model(**sft_batch(siblings()), use_cache=False, fused_lm_head=True) for model in (packed, plain))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-5)


def test_rows_padded_on_the_left_are_packed_as_well() -> None:
    rows = [(row, trained) for row, trained in siblings() if len(row) > trained]
    length = max(len(row) for row, _ in rows)
    batch = {
        key: torch.stack([each.roll(length - len(row)) for each, (row, _) in zip(values, rows, strict=True)])
        for key, values in sft_batch(rows).items()
    }
    model = fused(qwen2())
    stats = add_trie_packing(model)
    out = model(**batch, use_cache=False, fused_lm_head=True)
    assert stats.packed_batches == 1
    expected, _ = summed_loss(fused(qwen2()), rows)
    assert -float(out.log_probs.detach().double().sum()) == pytest.approx(expected, rel=LOSS)


def test_log_probabilities_of_rows_alone_come_with_gradients() -> None:
    rows = [row for row, _ in siblings()]
    targets = [[1, len(row) - 1] for row in rows]
    one, other = fused(qwen2()), fused(qwen2())
    add_trie_packing(one)
    values = row_log_probs(one, rows, targets)
    for got, row, places in zip(values, rows, targets, strict=True):
        expected = torch.log_softmax(other(torch.tensor([row])).logits[0].detach(), -1)
        torch.testing.assert_close(got.detach(), torch.stack([expected[at - 1, row[at]] for at in places]))
    torch.stack(values).sum().backward()
    assert gradients(one)


@pytest.mark.parametrize("items", [None, 40])
def test_rows_that_share_little_go_one_by_one_and_are_counted(items: int | None) -> None:
    one, other = fused(qwen2()), fused(qwen2())
    stats = add_trie_packing(other)
    batch = sft_batch([(tokens(30 - 7 * seed, seed), 5) for seed in range(4)])
    batch["labels"][2] = -100
    expected, got = (model(**batch, num_items_in_batch=items, fused_lm_head=True) for model in (one, other))
    assert (stats.packed_batches, stats.unpacked_batches) == (0, 1)
    assert stats.row_tokens == stats.computed_tokens == 78
    for name, values in expected.items():
        torch.testing.assert_close(got[name], values, msg=lambda said, name=name: f"{name}: {said}")
    for out in (expected, got):
        out.loss.backward()
    assert difference(gradients(other), gradients(one)) < GRADIENTS


def test_a_call_with_arguments_that_packing_does_not_know_goes_as_it_was() -> None:
    model = fused(qwen2())
    stats = add_trie_packing(model)
    batch = sft_batch(siblings())
    places = torch.arange(batch["input_ids"].shape[1])[None]
    model(**batch, position_ids=places, use_cache=False, fused_lm_head=True)
    assert (stats.packed_batches, stats.unpacked_batches) == (0, 1)


def test_generation_and_plain_logits_are_as_before() -> None:
    one, other = qwen2(), fused(qwen2())
    add_trie_packing(other)
    prompt = torch.tensor([tokens(12, 0), tokens(12, 1)])
    torch.testing.assert_close(one(prompt).logits, other(prompt).logits)
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
    assert one.generate(prompt, **settings).tolist() == other.generate(prompt, **settings).tolist()
