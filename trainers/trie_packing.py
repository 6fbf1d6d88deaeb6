"""Trie-packed training: a batch's rows at the cost of their distinct tokens, with the same losses and gradients.

TRL's trainers compute their losses from `model(..., labels=labels, fused_lm_head=True)`, whose log-probabilities they
get as [B, T - 1]. `add_trie_packing` wraps that one call: the rows of the batch are packed into a trie, the model runs
once over its nodes [1, N] (positions from the root, attention to ancestors only), the hidden states of the nodes that
predict a trained token are picked (a branch node predicts several), TRL's own head scores them, and the values go back
to where TRL expects them. No loss, metric or reference of TRL is touched, so all of them work as they are.

Exact means: with dropout 0, equal up to rounding. With dropout, rows that share a prefix share its dropped units.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.errors import UsageError
from trainers.trie import Trie, build_trie
from trainers.trie_attention import CHAINS, NAMES, Attention, TrieLayout, UnpackableError

_PACKABLE_KEYS = frozenset({"input_ids", "attention_mask", "use_cache", "num_items_in_batch"})
"""A call with any other argument (images, positions of its own, router logits) goes unpacked."""
_TOKENWISE = ("default", "linear", "llama3", "yarn", "proportional")
"""Rotary scalings that depend on a token's position alone, not on the longest row of the batch."""
_RECURRENT = (
    "mamba",
    "rwkv",
    "jamba",
    "zamba",
    "bamba",
    "recurrent",
    "falcon_h1",
    "next",
    "lfm",
    "nemotron_h",
    "xlstm",
)
_PROBE = ((1, 2, 3, 4, 5, 6), (1, 2, 3, 7, 8), (1, 2, 3), (9, 2, 3))


@dataclass
class PackingStats:
    """What packing has saved so far, over all forward passes (a reference model's too)."""

    row_tokens: int = 0
    """Tokens of the rows, without padding."""
    computed_tokens: int = 0
    """Of which the model ran over so many (padding not counted)."""
    packed_batches: int = 0
    unpacked_batches: int = 0


@dataclass(frozen=True)
class PackedBatch:
    """A padded batch as one packed sequence."""

    trie: Trie
    predictors: npt.NDArray[np.int64]
    """The nodes [P] that predict the trained tokens, in the order of the batch's label mask."""
    row_tokens: int
    """Tokens of its rows, without padding."""

    @property
    def worthwhile(self) -> bool:
        """Whether packing is faster than a pass for each row.

        Measured on CPU (tests/benchmarks/trie_packing.py): in one long sequence a token costs up to NODE_COST of what
        it costs in a row by itself, which caches hold better; a short chain costs a call of attention besides, about
        as much as CHAIN_TOKENS.
        """
        branches = len(self.trie.chains) - 1
        return NODE_COST * len(self.trie) + CHAIN_TOKENS * branches < self.row_tokens


NODE_COST, CHAIN_TOKENS = 1.2, 8


def add_trie_packing(model: Any, attention: Attention = "chains") -> PackingStats:
    """Packs the batches of a causal LM (never its PEFT wrapper) to which TRL has added its fused head.

    Afterwards `model(..., fused_lm_head=True, labels=labels)` also takes `row_weights` [B]: they scale the gradients of
    a row's log-probabilities, not their values. Of a batch that shares too little each row goes through by itself on a
    CPU, which is faster than padding, and elsewhere all go through as they were. Raises UsageError where `why_not` has
    a reason.
    """
    if reason := why_not(model):
        raise UsageError(f"this model cannot be trie-packed: {reason}")
    model.set_attn_implementation(NAMES[attention])
    model.base_model.register_forward_hook(_keep_predictors, with_kwargs=True)
    stats = PackingStats()
    model.forward = types.MethodType(_packing(model.forward, type(model).forward, stats), model)
    return stats


def add_row_weights(model: Any) -> None:
    """For a model that goes unpacked: `row_weights` alone, as `add_trie_packing` gives them."""

    def unpacked(self: Any, *args: Any, row_weights: Any = None, **kwargs: Any) -> Any:
        return _weighted(inner(*args, **kwargs), row_weights, kwargs)

    inner = model.forward
    model.forward = types.MethodType(functools.wraps(type(model).forward)(unpacked), model)


def row_log_probs(
    model: Any, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], row_weights: Any = None
) -> list[torch.Tensor]:
    """The log-probability of each row's tokens at the positions `targets` (1 or more), with gradients.

    For any model with TRL's fused head, wrapped (PEFT, accelerate) or not; packed if `add_trie_packing` was called.
    """
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for index, (row, places) in enumerate(zip(rows, targets, strict=True)):
        mask[index, : len(row)] = 1
        labels[index, list(places)] = ids[index, list(places)]
    weights = {} if row_weights is None else {"row_weights": row_weights}
    device = next(model.parameters()).device
    batch = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}
    out = model(**batch, **weights, use_cache=False, fused_lm_head=True)
    return [out.log_probs[index, [place - 1 for place in places]] for index, places in enumerate(targets)]


def pack(input_ids: Any, attention_mask: Any, labels: Any) -> PackedBatch | None:
    """The batch [B, T] as a trie, or None if it cannot be: nothing to train, or a mask that is no plain padding."""
    ids, mask, wanted = (each.cpu().numpy() for each in (input_ids, attention_mask != 0, labels[:, 1:] != -100))
    spans = [_span(row) for row in mask]
    if not wanted.any() or any(stop - start != row.sum() for (start, stop), row in zip(spans, mask, strict=True)):
        return None
    trie = build_trie([row[start:stop] for row, (start, stop) in zip(ids, spans, strict=True)])
    nodes = np.full(ids.shape, -1)
    for index, (start, stop) in enumerate(spans):
        nodes[index, start:stop] = trie.nodes(index)
    predictors = nodes[:, :-1][wanted]
    return None if (predictors < 0).any() else PackedBatch(trie, predictors, int(mask.sum()))


def why_not(model: Any) -> str:
    """Why a model cannot be packed exactly, in one line; empty if it can: by its configuration and then by a trial."""
    return _config_reason(model) or _trial_reason(model)


def _packing(inner: Callable[..., Any], signature: Any, stats: PackingStats) -> Callable[..., Any]:
    @functools.wraps(signature)  # generate() and Trainer look at the signature
    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, row_weights: Any = None, **kwargs: Any
    ) -> Any:
        given = kwargs if labels is None else {**kwargs, "labels": labels}
        if not fused_lm_head:
            return inner(*args, **given)
        packed = None if args or labels is None or not _plain(kwargs) else pack(**_padded(kwargs), labels=labels)
        if packed is None or not (packed.worthwhile or labels.device.type == "cpu"):
            out = inner(*args, fused_lm_head=True, **given)
        else:
            parts = [packed] if packed.worthwhile else _each_row(labels=labels, **_padded(kwargs))
            out = _outputs(inner, parts, labels, kwargs)
        _count(stats, packed, kwargs)
        return _weighted(out, row_weights, kwargs)

    return forward


def _plain(kwargs: dict[str, Any]) -> bool:
    return kwargs.get("input_ids") is not None and all(
        key in _PACKABLE_KEYS or value is None for key, value in kwargs.items()
    )


def _padded(kwargs: dict[str, Any]) -> dict[str, Any]:
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}


def _each_row(**batch: Any) -> list[PackedBatch]:
    """The rows that have something to train, each without its padding."""
    count = len(batch["input_ids"])
    alone = (pack(**{key: value[row : row + 1] for key, value in batch.items()}) for row in range(count))
    return [row for row in alone if row is not None]


def _outputs(inner: Callable[..., Any], parts: Sequence[PackedBatch], labels: Any, kwargs: dict[str, Any]) -> Any:
    """TRL's outputs of the padded batch, from one pass over each of its parts.

    TRL's forward is given the targets as `shift_labels` [1, P], which it pairs with the hidden states as they come: by
    then `_keep_predictors` has put those of the predictors there.
    """
    wanted = labels[:, 1:] != -100
    targets = labels[:, 1:][wanted].split([len(part.predictors) for part in parts])
    given = {"num_items_in_batch": kwargs.get("num_items_in_batch"), "use_cache": False, "fused_lm_head": True}
    outs = [
        inner(**packed_inputs(part, labels.device), shift_labels=own[None], **given)
        for part, own in zip(parts, targets, strict=True)
    ]
    out, wanted = outs[0], wanted.to(outs[0].log_probs.device)
    for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"):
        if getattr(out, name) is not None:
            values = torch.cat([getattr(each, name)[0] for each in outs])
            setattr(out, name, values.new_zeros(wanted.shape).masked_scatter(wanted, values))
    out.label_mask, out.loss = wanted, _loss(out.log_probs, wanted, kwargs)
    return out


def _loss(log_probs: Any, wanted: Any, kwargs: dict[str, Any]) -> Any:
    """As TRL's head computes it."""
    items = kwargs.get("num_items_in_batch")
    return -log_probs.sum() / (wanted.sum().clamp(min=1) if items is None else items)


def packed_inputs(packed: PackedBatch, device: torch.device) -> dict[str, Any]:
    """What the model's backbone takes, [1, N] each; the mask of ones keeps transformers from guessing documents."""
    ids = torch.as_tensor(packed.trie.tokens, device=device)[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.as_tensor(packed.trie.positions, device=device)[None],
        "trie": TrieLayout(packed.trie, torch.as_tensor(packed.predictors, device=device)),
    }


def _keep_predictors(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """A forward hook of the backbone: under a trie, hidden states [1, P, H] of the predictors instead of [1, N, H]."""
    if (trie := kwargs.get("trie")) is not None and trie.predictors is not None:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden.index_select(1, trie.predictors.to(hidden.device))
    return output


def _weighted(out: Any, row_weights: Any, kwargs: dict[str, Any]) -> Any:
    if row_weights is None or getattr(out, "log_probs", None) is None:
        return out
    fixed = out.log_probs.detach()
    weights = torch.as_tensor(row_weights, dtype=fixed.dtype, device=fixed.device)[:, None]
    out.log_probs = fixed + weights * (out.log_probs - fixed)
    out.loss = _loss(out.log_probs, out.label_mask, kwargs)
    return out


def _count(stats: PackingStats, packed: PackedBatch | None, kwargs: dict[str, Any]) -> None:
    if kwargs.get("input_ids") is None:
        return
    row_tokens = packed.row_tokens if packed else int(_padded(kwargs)["attention_mask"].sum())
    done = packed is not None and packed.worthwhile
    stats.row_tokens += row_tokens
    stats.computed_tokens += len(packed.trie) if done and packed else row_tokens
    stats.packed_batches += done
    stats.unpacked_batches += not done


def _span(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    columns = np.flatnonzero(mask)
    return (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)


def _config_reason(model: Any) -> str:
    config = model.config.get_text_config()
    kinds = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if any(word in config.model_type for word in _RECURRENT):
        return f"{config.model_type} has recurrent or linear-attention layers"
    if kinds:
        return f"it has layers of {' and '.join(kinds)}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"its attention is a sliding window of {config.sliding_window} tokens"
    if getattr(config, "output_router_logits", False):
        return "its routers' loss counts every token of every row"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{config.model_type} does not use transformers' attention interface"
    scaling = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return "" if scaling in _TOKENWISE else f"its rotary scaling ({scaling}) depends on the length of the batch"


def _trial_reason(model: Any) -> str:
    try:
        with _trying(model), torch.no_grad():
            differs, allowed = _trial(model)
    except UnpackableError as error:
        return str(error)
    if differs <= allowed:
        return ""
    return f"a trial of packing differed by {differs:.1e} (at most {allowed:.1e} is rounding)"


def _trial(model: Any) -> tuple[float, float]:
    """How far the last hidden states of four tiny rows are from their own when packed, and how far they may be."""
    rows = [[token % model.config.get_text_config().vocab_size for token in row] for row in _PROBE]
    trie = build_trie(rows)
    packed = packed_inputs(PackedBatch(trie, np.arange(len(trie)), 0), model.device)
    together = model.base_model(**packed, use_cache=False).last_hidden_state[0].double()
    worst = 0.0
    for index, row in enumerate(rows):
        alone = model.base_model(torch.tensor([row], device=model.device), use_cache=False).last_hidden_state[0]
        differs = together[torch.as_tensor(trie.nodes(index), device=together.device)] - alone
        worst = max(worst, float(differs.norm() / alone.double().norm()))
    return worst, 4 * torch.finfo(alone.dtype).eps ** 0.75


@contextmanager
def _trying(model: Any) -> Iterator[None]:
    """The model as packing needs it, for a trial: set back afterwards."""
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(CHAINS)
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(training)
