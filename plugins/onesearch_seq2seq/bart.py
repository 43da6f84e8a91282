"""Published BART weights as the start of a network of the same dimensions."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from onesearch.errors import UsageError
from onesearch.vocabulary import Vocabulary
from torch import Tensor

from onesearch_seq2seq.checkpoints import read_tensors
from onesearch_seq2seq.model import Seq2Seq

# BART's names of our special tokens; the others have no counterpart.
_SPECIALS = {"<bos>": "<s>", "<eos>": "</s>"}
_POSITIONS_BEFORE = 2  # BART's position 0 stands at row 2


def start_from_bart(model: Seq2Seq, vocabulary: Vocabulary, folder: Path) -> int:
    """Copy every weight that has a counterpart into the network; returns how many tokens were known to BART.

    ``folder`` holds ``model.safetensors`` and ``vocab.json`` as published. Tokens are matched by their text
    (both vocabularies are byte-level BPE); the others, the SID codes and the heads keep their initial values.
    Raises UsageError where the files are missing or of other dimensions.
    """
    try:
        words: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"start_from: {folder / 'vocab.json'} cannot be read ({error})") from error
    if not (folder / "model.safetensors").exists():
        raise UsageError(f"start_from: {folder / 'model.safetensors'} is missing")
    source = {
        name.removeprefix("model."): tensor
        for name, tensor in read_tensors(folder / "model.safetensors").items()
    }
    with torch.no_grad():
        try:
            return _copy(model, vocabulary, source, words)
        except (KeyError, RuntimeError) as error:
            raise UsageError(f"start_from: the weights in {folder} do not fit size: {error}") from error


def _copy(model: Seq2Seq, vocabulary: Vocabulary, source: dict[str, Tensor], words: dict[str, int]) -> int:
    shared = source["shared.weight"] if "shared.weight" in source else source["encoder.embed_tokens.weight"]
    known = 0
    for token, number in vocabulary.text.get_vocab(with_added_tokens=True).items():
        theirs = words.get(_SPECIALS.get(token, token))
        if theirs is not None:
            model.tokens.weight[number].copy_(shared[theirs])
            known += 1
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        wanted = stack.positions.weight
        rows = source[f"{side}.embed_positions.weight"][_POSITIONS_BEFORE : _POSITIONS_BEFORE + len(wanted)]
        wanted[: len(rows)].copy_(rows)
        own = stack.state_dict(keep_vars=True)
        names = {"input_norm": f"{side}.layernorm_embedding"}
        for at in range(model.dims.layers):
            here, there = f"layers.{at}", f"{side}.layers.{at}"
            names |= {
                f"{here}.attention_norm": f"{there}.self_attn_layer_norm",
                f"{here}.up": f"{there}.fc1",
                f"{here}.down": f"{there}.fc2",
                f"{here}.feed_norm": f"{there}.final_layer_norm",
            }
            _copy_attention(own, f"{here}.attention", source, f"{there}.self_attn")
            if side == "decoder":
                names[f"{here}.cross_norm"] = f"{there}.encoder_attn_layer_norm"
                _copy_attention(own, f"{here}.cross", source, f"{there}.encoder_attn")
        for ours, theirs_name in names.items():
            for kind in ("weight", "bias"):
                own[f"{ours}.{kind}"].copy_(source[f"{theirs_name}.{kind}"])
    return known


def _copy_attention(own: dict[str, Tensor], ours: str, source: dict[str, Tensor], theirs: str) -> None:
    for kind in ("weight", "bias"):
        own[f"{ours}.q.{kind}"].copy_(source[f"{theirs}.q_proj.{kind}"])
        pair = [source[f"{theirs}.{part}_proj.{kind}"] for part in ("k", "v")]
        own[f"{ours}.kv.{kind}"].copy_(torch.cat(pair))
        own[f"{ours}.out.{kind}"].copy_(source[f"{theirs}.out_proj.{kind}"])
