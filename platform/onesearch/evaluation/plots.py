"""One picture of an evaluation: every system's metrics with their intervals."""

from __future__ import annotations

from pathlib import Path

from onesearch.evaluation.evaluating import Evaluation
from onesearch.evaluation.systems import OWN, UNPERSONALISED
from onesearch.figures import new_figure, write_png

SHOWN = ("R@10", "HR@10", "MRR@10", "NDCG@10", "R@100", "R@350")
_OWN_COLOUR, _OTHER_COLOUR = "#0b6e4f", "#8a8f98"


def plot(evaluation: Evaluation, path: Path) -> Path:
    """Write a PNG: one panel a metric, one line a system, its 95 % interval around its mean."""
    names = list(evaluation.runs)
    figure = new_figure(11, 1.6 + 0.34 * 2 * len(names))
    axes = figure.subplots(2, 3, sharey=True).ravel()
    for axis, metric in zip(axes, SHOWN, strict=True):
        for at, name in enumerate(names):
            estimate = evaluation.measured[name][metric]
            colour = _OWN_COLOUR if name in (*OWN, UNPERSONALISED) else _OTHER_COLOUR
            axis.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=2, alpha=0.5)
            axis.plot(estimate.value, at, "o", color=colour, markersize=6 if name == "onesearch" else 4.5)
            axis.annotate(
                f"{estimate.value:.3f}",
                (estimate.high, at),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
            )
        axis.set_yticks(range(len(names)), names)
        axis.set_title(metric, fontsize=10, loc="left")
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", alpha=0.25)
        axis.margins(x=0.22, y=0.08)
        axis.set_axisbelow(True)
    axes[0].invert_yaxis()
    figure.suptitle(
        f"{evaluation.release}: {evaluation.searches:,} searches of {Path(evaluation.queries).name}"
        " (means, 95 % bootstrap intervals)",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    return write_png(figure, path)
