"""The three towers: click, order after a click, and both, over one trunk (torch; learning only).

With h_v the view v of a request, c the candidate's vector and s its scalars::

    u_v = A_v h_v,  y = C c,  x = [y, u_1 ⊙ y, …, u_V ⊙ y, standardised s]
    z = relu(W_2 relu(W_1 x)),  p_k = σ(w_k · relu(T_k z) + b_k + t(s, place))          k = CTR, CTCVR
                                p_CVR = σ(w · relu(T z) + b + a·t(s, first place))

t are the log-odds of a click by boosted trees (:mod:`onesearch_pars.trees`): the network learns what they
leave over, from what trees say of searches that they were not fitted to. Each tower is trained by binary
cross-entropy: CTR and CTCVR on impressions, CVR on clicks, of which there are few: it reads the trunk and
does not shape it. Each loss is divided by the entropy of its mean label, so that orders are not drowned.

Who clicks has looked, and who looks looks at the top. The trees therefore know where a candidate stood, and
serving asks for the first place: the reward says what a candidate is worth, not where it stood.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from onesearch.errors import ArtifactError
from onesearch.progress import Progress
from torch import Tensor, nn

from onesearch_pars.config import TowersConfig
from onesearch_pars.samples import Rows
from onesearch_pars.trees import FIRST, Trees, boost

TOWERS = ("ctr", "cvr", "ctcvr")
_CLIP = 5.0
_PREDICTED = 1_000  # requests at once


class Towers(nn.Module):
    """The network over standardised scalars."""

    mean: Tensor
    scale: Tensor

    def __init__(self, views: int, dim: int, scalars: int, config: TowersConfig) -> None:
        super().__init__()
        rank, width = config.rank, config.rank * (1 + views) + scalars
        self.view = nn.Parameter(torch.randn(views, dim, rank) * dim**-0.5)
        self.candidate = nn.Parameter(torch.randn(dim, rank) * dim**-0.5)
        self.first, self.second = (
            nn.Linear(width, config.hidden),
            nn.Linear(config.hidden, config.hidden // 2),
        )
        self.tower = nn.Linear(config.hidden // 2, len(TOWERS) * config.tower)
        self.out = nn.Parameter(torch.zeros(len(TOWERS), config.tower))
        self.bias = nn.Parameter(torch.zeros(len(TOWERS)))
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("mean", torch.zeros(scalars))
        self.register_buffer("scale", torch.ones(scalars))
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(
        self, views: Tensor, request: Tensor, vectors: Tensor, scalars: Tensor, odds: Tensor
    ) -> Tensor:
        """Logits f32[M, 3].

        Args:
            views: f32[B, V, D], of B requests. request: i64[M], which of them each candidate is of.
            vectors: f32[M, D]. scalars: f32[M, S].
            odds: f32[M, 2], the trees' log-odds of a click where the candidate stood, and at the first place.
        """
        own = vectors @ self.candidate
        asked = torch.einsum("bvd,vdr->bvr", views, self.view)[request]
        plain = ((scalars - self.mean) * self.scale).clamp(-_CLIP, _CLIP)
        x = torch.cat([own, (asked * own[:, None]).flatten(1), plain], dim=1)
        z = F.relu(self.second(self.dropout(F.relu(self.first(self.dropout(x))))))
        shaping, reading = (self.tower(part).unflatten(1, (len(TOWERS), -1)) for part in (z, z.detach()))
        towers = torch.stack([shaping[:, 0], reading[:, 1], shaping[:, 2]], dim=1)
        boosted = torch.stack([odds[:, 0], odds[:, 1] * self.slope, odds[:, 0]], dim=1)
        return (F.relu(towers) * self.out).sum(dim=2) + self.bias + boosted


@dataclass(frozen=True)
class FittedTowers:
    """The network and the trees below it; ``rounds``: how many trees were enough."""

    network: Towers
    trees: Trees
    rounds: int = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be saved and exported."""
        tensors = self.network.state_dict()
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()} | self.trees.arrays()

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], config: TowersConfig) -> FittedTowers:
        """Read what :meth:`arrays` gave. Raises ArtifactError for towers of before there were trees."""
        if "trees.roots" not in arrays:
            raise ArtifactError("these towers are of an older version: fit the reward again")
        trees = Trees.of_arrays(arrays)
        views, dim, _ = arrays["view"].shape
        network = Towers(views, dim, len(arrays["mean"]), config)
        own = {name: torch.from_numpy(arrays[name]) for name in network.state_dict()}
        network.load_state_dict(own)
        return cls(network.eval(), trees, len(trees.roots))

    def odds(self, rows: Rows, at: np.ndarray, placed: bool) -> np.ndarray:
        """The trees' log-odds f32[n, 2] of some rows, as they stood or, not ``placed``, as if first."""
        place = rows.place[at] if placed else np.full(len(at), FIRST, np.int32)
        return self.trees.both(rows.scalars[at], place)


def fit_towers(
    rows: Rows,
    train: np.ndarray,
    valid: np.ndarray,
    vectors: np.ndarray,
    config: TowersConfig,
    progress: Progress,
) -> tuple[FittedTowers, list[dict[str, float]]]:
    """Train, stop early, and return the best towers with their curve.

    Best is what predicts clicks and their orders best (CTR and CTCVR) in ``valid``.

    Args:
        rows: training and validation together.
        train, valid: i64, which of its requests. Without ``valid`` all epochs are run.
        vectors: f16[N, D], of the catalogue.
    """
    torch.manual_seed(config.seed)
    model = Towers(rows.views.shape[1], vectors.shape[1], rows.scalars.shape[1], config)
    known, means = rows.of(train), _means(rows, rows.of(train))
    with progress.task("fitting the towers' trees"):
        odds, trees, rounds = _boosted(rows, train, valid, config)
    with torch.no_grad():
        values = rows.scalars[known].astype(np.float64)
        model.mean.copy_(torch.from_numpy(values.mean(axis=0)))
        model.scale.copy_(torch.from_numpy(1 / np.maximum(values.std(axis=0), 1e-3)))
        start = np.log(means / (1 - means))
        model.bias.copy_(torch.from_numpy(start - start[0] * np.array([1.0, 0.0, 1.0])))
    entropy = torch.from_numpy(
        (-(means * np.log(means) + (1 - means) * np.log(1 - means))).astype(np.float32)
    )
    table = torch.from_numpy(np.array(vectors))
    steps = -(-len(known) // config.batch_size)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    total = config.epochs * steps + 1  # the schedule sets the rate of the step to come, too
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=total, pct_start=0.1
    )
    best, kept, curve, since = float("inf"), copy.deepcopy(model.state_dict()), [], 0
    with progress.task("fitting the towers", total=config.epochs * steps) as task:
        for epoch in range(config.epochs):
            model.train()
            order, losses = np.random.default_rng([config.seed, epoch]).permutation(train), []
            for some in _batches(rows, order, config.batch_size):
                loss = (_losses(model, rows, some, table, odds)[0] / entropy).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
                task.advance()
            held = (
                _mean_losses(model, rows, valid, table, odds) / entropy.numpy() if len(valid) else np.zeros(0)
            )
            entry = {"epoch": epoch + 1, "loss": float(np.mean(losses))}
            curve.append(entry | dict(zip(TOWERS, held.tolist(), strict=False)))
            score = float(held[0] + held[2]) if len(valid) else -epoch
            if score < best:
                best, kept, since = score, copy.deepcopy(model.state_dict()), 0
            else:
                since += 1
                if since >= config.patience:
                    break
    model.load_state_dict(kept)
    return FittedTowers(model.eval(), trees, rounds), curve


def _boosted(
    rows: Rows, train: np.ndarray, valid: np.ndarray, config: TowersConfig
) -> tuple[np.ndarray, Trees, int]:
    """Log-odds f32[M, 2] of the rows of both by trees that were not fitted to them, the trees, how many."""
    odds = np.zeros((len(rows), 2), np.float32)
    known, held = rows.of(train), rows.of(valid)
    if not config.trees or not rows.clicked[known].any():
        return odds, Trees.none(), 0
    request = np.repeat(np.arange(len(train)), rows.counts[train])
    held_out = (rows.scalars[held], rows.place[held], rows.clicked[held]) if len(held) else None
    found = boost(
        rows.scalars[known],
        rows.place[known],
        rows.clicked[known],
        request,
        config.trees,
        config.seed,
        held_out,
    )
    odds[known] = found.unseen
    odds[held] = found.trees.both(rows.scalars[held], rows.place[held])
    return odds, found.trees, found.rounds


def best_epoch(curve: list[dict[str, float]]) -> int:
    """The epoch whose towers :func:`fit_towers` kept."""
    return int(min(curve, key=lambda entry: entry.get("ctr", 0.0) + entry.get("ctcvr", 0.0))["epoch"])


@torch.no_grad()
def predict(
    model: FittedTowers, rows: Rows, requests: np.ndarray, vectors: np.ndarray, placed: bool = False
) -> np.ndarray:
    """Rates f32[n, 3] of the rows of some requests; ``placed``: as they stood, else as if all stood first."""
    table = torch.from_numpy(np.array(vectors))
    found = [np.zeros((0, len(TOWERS)), np.float32)]
    for start in range(0, len(requests), _PREDICTED):
        some = requests[start : start + _PREDICTED]
        odds = torch.from_numpy(model.odds(rows, rows.of(some), placed))
        found.append(model.network(*_inputs(rows, some, table), odds).sigmoid().numpy())
    return np.concatenate(found)


def _batches(rows: Rows, requests: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Requests in order, in batches of about ``size`` rows."""
    ends = np.cumsum(rows.counts[requests])
    if not len(ends):
        return
    cuts = np.searchsorted(ends, np.arange(size, ends[-1], size))
    yield from (part for part in np.split(requests, cuts) if len(part))


def _inputs(rows: Rows, requests: np.ndarray, table: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    at = rows.of(requests)
    return (
        torch.from_numpy(rows.views[requests]).float(),
        torch.from_numpy(np.repeat(np.arange(len(requests)), rows.counts[requests])),
        table[torch.from_numpy(rows.item[at].astype(np.int64))].float(),
        torch.from_numpy(rows.scalars[at]),
    )


def _labels(rows: Rows, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights f32[n, 3] of the towers."""
    clicked, ordered = rows.clicked[at], rows.ordered[at]
    every = np.ones_like(clicked)
    return np.stack([clicked, ordered, ordered], axis=1), np.stack([every, clicked, every], axis=1)


def _losses(
    model: Towers, rows: Rows, requests: np.ndarray, table: Tensor, odds: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Mean losses f32[3] of some requests' rows, and how much each tower had to learn from, f32[3]."""
    at = rows.of(requests)
    labels, weights = (torch.from_numpy(part) for part in _labels(rows, at))
    logits = model(*_inputs(rows, requests, table), torch.from_numpy(odds[at]))
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * weights
    total = weights.sum(dim=0)
    return losses.sum(dim=0) / total.clamp(min=1e-6), total


@torch.no_grad()
def _mean_losses(
    model: Towers, rows: Rows, requests: np.ndarray, table: Tensor, odds: np.ndarray
) -> np.ndarray:
    model.eval()
    total, weight = np.zeros(len(TOWERS)), np.zeros(len(TOWERS))
    for start in range(0, len(requests), _PREDICTED):
        losses, counted = _losses(model, rows, requests[start : start + _PREDICTED], table, odds)
        total += (losses * counted).numpy()
        weight += counted.numpy()
    return total / np.maximum(weight, 1e-6)


def _means(rows: Rows, at: np.ndarray) -> np.ndarray:
    """Mean labels f64[3], away from 0 and 1."""
    labels, weights = _labels(rows, at)
    means = (labels * weights).sum(axis=0, dtype=np.float64) + 1
    return np.clip(means / (weights.sum(axis=0, dtype=np.float64) + 2), 1e-4, 1 - 1e-4)
