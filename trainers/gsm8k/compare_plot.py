"""The plot of a comparison: accuracy over training samples. The only module that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from trainers.card import atomic_file
from trainers.gsm8k.compare import Compared, Row

COLOURS = ("#0b6e4f", "#b3261e", "#1f5fa8", "#8a5a00", "#6a3d9a", "#444444", "#c2185b")
MARKS = "osD^vPX"
_APART = 1.035
"""Marks of one budget stand this factor apart, so that their intervals do not cover each other."""
_SAME_BYTES = {"svg.hashsalt": "repo-agent", "svg.fonttype": "none"}


def write_plot(found: Compared, root: Path) -> None:
    """compare.png and compare.svg in `root`; equal figures give equal files."""
    with matplotlib.rc_context(_SAME_BYTES):
        figure = plot(found)
        for kind, about in (("png", {"Software": None}), ("svg", {"Date": None})):
            with atomic_file(root / f"compare.{kind}") as file:
                figure.savefig(file, format=kind, dpi=150, metadata=about)


def plot(found: Compared) -> Any:
    """A figure with one line per way of training, and base and prep as horizontal lines."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    trained = [row for row in found.rows if row.point.on_a_line]
    for number, name in enumerate(dict.fromkeys(row.point.name for row in trained)):
        rows = [row for row in trained if row.point.name == name]
        _line(axes, rows, [_beside(row, trained) for row in rows], number)
    for row, style in zip([row for row in found.rows if not row.point.on_a_line], cycle((":", "--", "-."))):
        _level(axes, row, style)
    _label(axes, sorted({row.point.train_samples for row in trained}), found.questions)
    return figure


def _beside(row: Row, trained: Sequence[Row]) -> float:
    """Where a point stands: at its budget, or next to it where others have the same one."""
    same = [each for each in trained if each.point.train_samples == row.point.train_samples]
    return float(row.point.train_samples * _APART ** (same.index(row) - (len(same) - 1) / 2))


def _line(axes: Any, rows: Sequence[Row], places: Sequence[float], number: int) -> None:
    rates = [row.rates["correct"] for row in rows]
    axes.errorbar(
        places,
        [100 * rate.value for rate in rates],
        yerr=[[100 * (rate.value - rate.low) for rate in rates], [100 * (rate.high - rate.value) for rate in rates]],
        label=rows[0].point.name,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKS[number % len(MARKS)],
        markersize=5,
        capsize=3,
        linewidth=1.4,
    )


def _level(axes: Any, row: Row, style: str) -> None:
    rate, point = row.rates["correct"], row.point
    name = f"{point.name} ({point.train_samples} samples)" if point.train_samples else point.name
    axes.axhline(100 * rate.value, color="#777777", linestyle=style, linewidth=1.2, label=name)
    axes.axhspan(100 * rate.low, 100 * rate.high, color="#777777", alpha=0.09, linewidth=0)


def _label(axes: Any, sizes: Sequence[int], questions: int) -> None:
    if sizes:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
        axes.minorticks_off()
    else:
        axes.set_xticks([])
    axes.set_xlabel("training samples")
    axes.set_ylabel(f"accuracy on {questions:,} questions (%)")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
