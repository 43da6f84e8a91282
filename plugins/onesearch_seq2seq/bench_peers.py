"""What a user would decode with instead, where it is installed: transformers and CTranslate2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onesearch.semantic_ids import PrefixTree

from onesearch_seq2seq.config import SIZES


def transformers_engines(
    size: str, tree: PrefixTree, text: int, threads: int, folder: Path, device: str = "cpu"
) -> dict[str, Callable[..., np.ndarray]]:
    """BART of the same size; ``generate`` with ``prefix_allowed_tokens_fn``, float32 (on GPUs float16)."""
    try:
        from transformers import BartConfig, BartForConditionalGeneration
    except ImportError:
        return {}
    dims, depth = SIZES[size], tree.depth
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=text + sum(tree.levels),
        d_model=dims.width,
        encoder_layers=dims.layers,
        decoder_layers=dims.layers,
        encoder_attention_heads=dims.heads,
        decoder_attention_heads=dims.heads,
        encoder_ffn_dim=dims.hidden,
        decoder_ffn_dim=dims.hidden,
        activation_function=dims.activation,
        forced_eos_token_id=None,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = BartForConditionalGeneration(config).eval().to(device)
    model = model if device == "cpu" else model.half()
    offsets = text + np.concatenate([[0], np.cumsum(tree.levels)[:-1]])
    known: dict[tuple[int, ...], list[int]] = {}

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        prefix = tuple((ids[1:].cpu().numpy() - offsets[: len(ids) - 1]).tolist())
        if prefix not in known:
            node = tree.find(prefix) if prefix else 0
            first = tree.first_child[len(prefix)]
            known[prefix] = (
                tree.code[len(prefix)][first[node] : first[node + 1]].astype(np.int64) + offsets[len(prefix)]
            ).tolist()
        return known[prefix]

    def engine(question: Any, beams: int) -> np.ndarray:
        with torch.inference_mode():
            found = model.generate(
                torch.from_numpy(question.ids.astype(np.int64)).to(device),
                num_beams=beams,
                num_return_sequences=beams,
                max_new_tokens=depth,
                min_new_tokens=depth,
                do_sample=False,
                prefix_allowed_tokens_fn=allowed,
            )
        return (found[:, 1 : depth + 1].cpu().numpy() - offsets).astype(np.int32)

    return {"transformers": engine}


def ctranslate2_engines(
    size: str, tree: PrefixTree, text: int, threads: int, folder: Path
) -> dict[str, Callable[..., np.ndarray]]:
    """A Transformer of the same size in int8; it has no constrained search, so beams run over the whole
    vocabulary."""
    try:
        import ctranslate2
    except ImportError:
        return {}
    dims, depth = SIZES[size], tree.depth
    activation = (
        ctranslate2.specs.Activation.RELU if dims.activation == "relu" else ctranslate2.specs.Activation.GELU
    )
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (dims.layers, dims.layers), dims.heads, pre_norm=True, activation=activation
    )
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", *(f"t{n}" for n in range(4, text + sum(tree.levels)))]
    _fill(spec, dims.width, dims.hidden, len(vocabulary))
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "<s>"
    spec.validate()
    spec.optimize(quantization="int8")
    path = folder / f"{size}-ctranslate2"
    path.mkdir(parents=True, exist_ok=True)
    spec.save(str(path))
    translator = ctranslate2.Translator(str(path), device="cpu", compute_type="int8", intra_threads=threads)
    offsets = text + np.concatenate([[0], np.cumsum(tree.levels)[:-1]])
    number = {token: at for at, token in enumerate(vocabulary)}

    def engine(question: Any, beams: int) -> np.ndarray:
        source = [[vocabulary[i] for i in question.ids[0]]]
        found = translator.translate_batch(
            source,
            beam_size=beams,
            num_hypotheses=beams,
            max_decoding_length=depth,
            min_decoding_length=depth,
        )[0].hypotheses
        rows = np.array([[number[token] for token in row[:depth]] for row in found if len(row) >= depth])
        codes = rows.reshape(-1, depth) - offsets
        return np.where((codes < 0) | (codes >= tree.levels), 0, codes).astype(np.int32)

    return {"ctranslate2-int8": engine}


def _fill(spec: Any, width: int, hidden: int, vocabulary: int) -> None:
    """Random weights of the right shapes in every place of a CTranslate2 specification."""
    random = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * 0.05).astype(np.float32)

    for stack in (spec.encoder, spec.decoder):
        embeddings = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
        embeddings.weight = array(vocabulary, width)
        stack.position_encodings.encodings = array(128, width)
        norms = [stack.layer_norm]
        for layer in stack.layer:
            attentions: list[tuple[Any, tuple[int, ...]]] = [(layer.self_attention, (3 * width, width))]
            if stack is spec.decoder:
                attentions.append((layer.attention, (width, 2 * width, width)))
            for attention, sizes in attentions:
                norms.append(attention.layer_norm)
                for linear, size in zip(attention.linear, sizes, strict=True):
                    linear.weight, linear.bias = array(size, width), array(size)
            norms.append(layer.ffn.layer_norm)
            layer.ffn.linear_0.weight, layer.ffn.linear_0.bias = array(hidden, width), array(hidden)
            layer.ffn.linear_1.weight, layer.ffn.linear_1.bias = array(width, hidden), array(width)
        for norm in norms:
            norm.gamma, norm.beta = np.ones(width, np.float32), np.zeros(width, np.float32)
    spec.decoder.projection.weight = array(vocabulary, width)
    spec.decoder.projection.bias = array(vocabulary)
    spec.decoder.scale_embeddings = spec.encoder.scale_embeddings = False


PEERS = (transformers_engines, ctranslate2_engines)
