"""The three towers: click, order after a click, and both, over one trunk (torch; learning only).

With h_v the view v of a request, c the candidate's vector and s its scalars::

    u_v = A_v h_v,  y = C c,  x = [y, u_1 ⊙ y, …, u_V ⊙ y, standardised s]
    z = relu(W_2 relu(W_1 x)),  p_k = σ(w_k · relu(T_k z) + bias of the place)    k = CTR, CVR, CTCVR

Each tower is trained by binary cross-entropy: CTR and CTCVR on impressions, CVR on clicks. Each is divided by
the entropy of its mean label, so that orders, of which there are few, are not drowned.

Who clicks has looked, and who looks looks at the top. CTR and CTCVR therefore learn a bias for every place,
which serving leaves at that of the first: the reward says what a candidate is worth, not where it stood.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from onesearch.progress import Progress
from torch import Tensor, nn

from onesearch_pars.config import TowersConfig
from onesearch_pars.samples import Rows

TOWERS = ("ctr", "cvr", "ctcvr")
PLACES = 40
"""Places with a bias of their own; the last stands for all behind it."""
_UNKNOWN = PLACES
_CLIP = 5.0


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
        self.out = nn.Parameter(torch.randn(len(TOWERS), config.tower) * config.tower**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(TOWERS)))
        self.place = nn.Parameter(torch.zeros(len(TOWERS), PLACES + 1))
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("mean", torch.zeros(scalars))
        self.register_buffer("scale", torch.ones(scalars))

    def forward(self, views: Tensor, vectors: Tensor, scalars: Tensor) -> Tensor:
        """Views f32[B, V, D], vectors f32[B, D], scalars f32[B, S] → logits f32[B, 3] at the first place."""
        own = vectors @ self.candidate
        asked = torch.einsum("bvd,vdr->bvr", views, self.view)
        plain = ((scalars - self.mean) * self.scale).clamp(-_CLIP, _CLIP)
        x = torch.cat([own, (asked * own[:, None]).flatten(1), plain], dim=1)
        x = F.relu(self.second(self.dropout(F.relu(self.first(self.dropout(x))))))
        towers = F.relu(self.tower(x)).unflatten(1, (len(TOWERS), -1))
        return (towers * self.out).sum(dim=2) + self.bias

    def shift(self, place: Tensor) -> Tensor:
        """What a place adds to the logits, f32[B, 3]: nothing at the first place, and nothing to CVR."""
        at = torch.where(place < 0, _UNKNOWN, place.clamp(max=PLACES - 1))
        applies = self.place.new_tensor([1.0, 0.0, 1.0])
        return ((self.place[:, at] - self.place[:, :1]).T) * applies

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be saved and exported."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}


def fit_towers(
    rows: Rows,
    train: np.ndarray,
    valid: np.ndarray,
    vectors: np.ndarray,
    config: TowersConfig,
    progress: Progress,
) -> tuple[Towers, list[dict[str, float]]]:
    """Train, stop early, and return the best towers with their curve.

    Args:
        rows: training and validation together. train, valid: i64, which of them. Without ``valid`` all epochs
            are run.
        vectors: f16[N, D], of the catalogue.
    """
    torch.manual_seed(config.seed)
    model = Towers(rows.views.shape[1], vectors.shape[1], rows.scalars.shape[1], config)
    with torch.no_grad():
        known = rows.scalars[train].astype(np.float64)
        model.mean.copy_(torch.from_numpy(known.mean(axis=0)))
        model.scale.copy_(torch.from_numpy(1 / np.maximum(known.std(axis=0), 1e-3)))
        model.bias.copy_(torch.from_numpy(_logits_of_means(rows, train)))
    table = torch.from_numpy(np.array(vectors))
    steps = max(1, -(-len(train) // config.batch_size))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.epochs * steps, pct_start=0.1
    )
    entropy = _entropies(rows, train)
    best, kept, curve, since = float("inf"), copy.deepcopy(model.state_dict()), [], 0
    with progress.task("fitting the towers", total=config.epochs * steps) as task:
        for epoch in range(config.epochs):
            model.train()
            order = np.random.default_rng([config.seed, epoch]).permutation(train)
            losses = []
            for start in range(0, len(order), config.batch_size):
                loss = _losses(model, rows, order[start : start + config.batch_size], table, entropy).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
                task.advance()
            held = _mean_losses(model, rows, valid, table, entropy) if len(valid) else np.zeros(0)
            entry = {"epoch": epoch + 1, "loss": float(np.mean(losses))}
            curve.append(entry | dict(zip(TOWERS, held.tolist(), strict=False)))
            if not len(valid) or held.sum() < best:
                best, kept, since = float(held.sum()), copy.deepcopy(model.state_dict()), 0
            else:
                since += 1
                if since >= config.patience:
                    break
    model.load_state_dict(kept)
    return model.eval(), curve


@torch.no_grad()
def predict(
    model: Towers, rows: Rows, at: np.ndarray, vectors: np.ndarray, placed: bool = False, batch: int = 8_192
) -> np.ndarray:
    """Rates f32[n, 3] of some rows; ``placed``: as they stood, else as if at the first place."""
    table = torch.from_numpy(np.array(vectors))
    found = [np.zeros((0, len(TOWERS)), np.float32)]
    for start in range(0, len(at), batch):
        some = at[start : start + batch]
        logits = model(*_inputs(rows, some, table))
        if placed:
            logits = logits + model.shift(torch.from_numpy(rows.place[some].astype(np.int64)))
        found.append(logits.sigmoid().numpy())
    return np.concatenate(found)


def _inputs(rows: Rows, at: np.ndarray, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(rows.views[rows.request[at]]).float(),
        table[torch.from_numpy(rows.item[at].astype(np.int64))].float(),
        torch.from_numpy(rows.scalars[at]),
    )


def _labels(rows: Rows, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights f32[n, 3] of the towers."""
    clicked, ordered = rows.clicked[at], rows.ordered[at]
    every = np.ones_like(clicked)
    return np.stack([clicked, ordered, ordered], axis=1), np.stack([every, clicked, every], axis=1)


def _losses(model: Towers, rows: Rows, at: np.ndarray, table: Tensor, entropy: np.ndarray) -> Tensor:
    """Losses f32[3] of a batch, each over its entropy; a batch without clicks teaches CVR nothing."""
    labels, weights = (torch.from_numpy(part) for part in _labels(rows, at))
    logits = model(*_inputs(rows, at, table)) + model.shift(torch.from_numpy(rows.place[at].astype(np.int64)))
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * weights
    return losses.sum(dim=0) / weights.sum(dim=0).clamp(min=1e-6) / torch.from_numpy(entropy)


@torch.no_grad()
def _mean_losses(model: Towers, rows: Rows, at: np.ndarray, table: Tensor, entropy: np.ndarray) -> np.ndarray:
    model.eval()
    total, weight = np.zeros(len(TOWERS)), np.zeros(len(TOWERS))
    for start in range(0, len(at), 8_192):
        some = at[start : start + 8_192]
        own = _labels(rows, some)[1].sum(axis=0)
        total += _losses(model, rows, some, table, entropy).numpy() * own
        weight += own
    return total / np.maximum(weight, 1e-6)


def _means(rows: Rows, at: np.ndarray) -> np.ndarray:
    """Mean labels f64[3], away from 0 and 1."""
    labels, weights = _labels(rows, at)
    means = (labels * weights).sum(axis=0, dtype=np.float64) + 1
    return np.clip(means / (weights.sum(axis=0, dtype=np.float64) + 2), 1e-4, 1 - 1e-4)


def _logits_of_means(rows: Rows, at: np.ndarray) -> np.ndarray:
    means = _means(rows, at)
    return np.log(means / (1 - means)).astype(np.float32)


def _entropies(rows: Rows, at: np.ndarray) -> np.ndarray:
    means = _means(rows, at)
    return (-(means * np.log(means) + (1 - means) * np.log(1 - means))).astype(np.float32)
