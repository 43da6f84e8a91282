"""Pictures without a display, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onesearch.errors import OneSearchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. Raises OneSearchError where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OneSearchError("plots need matplotlib: pip install 'onesearch[train]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure, and make its folder. Raises OneSearchError where that is not possible."""
    draft = path.with_suffix(".tmp.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(draft, dpi=140)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OneSearchError(f"{path}: the plot cannot be written ({error})") from error
    return path
