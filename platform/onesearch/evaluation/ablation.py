"""``onesearch bench ablation``: what each part of the components is worth.

A study is a function named by an entry point of the group ``onesearch.ablations``; components bring their
own. It is called with a store, a configuration, a work folder, the number of passes and a progress, and
returns rows.
"""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from onesearch._points import points
from onesearch.config import load_config
from onesearch.data.importers.demo import DemoSize, store_or_demo
from onesearch.errors import UsageError
from onesearch.plugins import nearest
from onesearch.progress import Progress, SilentProgress

GROUP = "onesearch.ablations"
DEMO = Path(str(files("onesearch"))) / "demo.toml"


def run(
    studies: tuple[str, ...] = (),
    store: Path | None = None,
    config: Path | None = None,
    passes: int = 3,
    work: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Leave parts of the components out in turn and measure what that costs, on held-out searches.

    Args:
        studies: which studies (khqe-losses, khqe-tables, museq …); none: all that are installed.
        store: what is learnt from and measured on; None makes the small simulated shop.
        config: the configuration that the whole is built by; none: the demo's on the small simulated shop
            (minutes an arm), the defaults on a store (up to an hour an arm).
        passes: of every alignment of a tokenizer. A generator's stages last as the configuration says.
        work: folder that keeps what can be used again between runs.

    Returns:
        ``rows``: {``part``, ``what``, ``without``, ``set``, ``HR@10``, ``R@10``, ``MRR@10``, ``change`` of
        R@10 (khqe) or HR@10 (museq) against the row named in ``against``, ``low``, ``high`` (95 %, paired
        bootstrap over ``queries``)}, and what a study says beside.
    """
    known = points(GROUP)
    for name in studies:
        if name not in known:
            raise UsageError(
                f"no ablation is named '{name}'{nearest(name, known)}; there are: {', '.join(known)}"
            )
    progress = progress or SilentProgress()
    settings = load_config(DEMO if config is None and store is None else config)
    with tempfile.TemporaryDirectory() as temporary:
        opened = store_or_demo(store, Path(temporary), progress, DemoSize.small)
        folder = work or Path(temporary) / "work"
        rows = [
            row
            for name in studies or tuple(known)
            for row in known[name].load()(opened, settings, folder / name, passes, progress)
        ]
    return {"rows": rows}
