"""Where the embeddings of SID codes start: at what the codes stand for.

A shopper's history, and the items most clicked for a query, come into the prompt as SIDs. Were their tokens
random at first, the network would have to learn for each code on its own which vectors it points at. Started
from the vectors themselves, one linear map from what is read to where the beams are steered serves all codes,
also those that training seldom shows.
"""

from __future__ import annotations

import numpy as np
import torch
from onesearch.index import LiveTree

from onesearch_seq2seq.model import Seq2Seq

STD = 0.02
"""Standard deviation of the entries, as of all other embeddings."""


def start_from_codes(model: Seq2Seq, live: LiveTree, seed: int) -> None:
    """Set the embedding of each code that the tree has to a random projection of its centroid.

    Equal directions stay equal directions: the projection keeps angles where d ≥ D, and nearly so elsewhere.
    Codes without a node keep what they have.
    """
    width = model.tokens.weight.shape[1]
    centroids = code_centroids(live)
    dim = centroids[0].shape[1]
    rng = np.random.default_rng([seed, 0xC0])
    axes = np.linalg.qr(rng.normal(size=(max(width, dim), min(width, dim))))[0]
    projection = axes.T if width >= dim else axes  # [D, d]
    with torch.no_grad():
        for level, centroid in enumerate(centroids):
            here = np.flatnonzero(np.abs(centroid).any(axis=1))
            placed = centroid[here] @ projection
            placed *= STD * width**0.5 / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-9)
            rows = torch.from_numpy(model.shape.offset(level) + here)
            model.tokens.weight[rows.to(model.tokens.weight.device)] = torch.from_numpy(placed).to(
                model.tokens.weight
            )


def code_centroids(live: LiveTree) -> list[np.ndarray]:
    """What each code of each level adds to a vector, f32[K_ℓ, D]; zeros where no node has the code.

    At the first level that is the mean vector of the node, below it the mean, over all nodes with the code,
    of how far the node's vector is from its parent's.
    """
    tree = live.tree
    found = []
    if live.by_code:
        return [np.asarray(vectors, dtype=np.float32) for vectors in live.vectors]
    for level, (codes, vectors) in enumerate(zip(tree.code, live.vectors, strict=True)):
        moved = np.asarray(vectors, dtype=np.float32)
        if level:
            first = tree.first_child[level]
            parent = np.repeat(np.arange(len(first) - 1), np.diff(first))
            moved = moved - np.asarray(live.vectors[level - 1], dtype=np.float32)[parent]
        sums = np.zeros((tree.levels[level], moved.shape[1]), np.float32)
        np.add.at(sums, codes, moved)
        counts = np.bincount(codes, minlength=tree.levels[level])
        found.append(sums / np.maximum(counts, 1)[:, None])
    return found
