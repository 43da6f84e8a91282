"""Preference learning: list-wise DPO over ranked lists, each level over the legal children of the prefix.

π is the network as it is served, π_ref the same network when the phase began. Its log-probabilities are
computed once, before the first step, and lie beside the checkpoints. Nothing is dropped out: a log-ratio of
two noisy likelihoods would be mostly noise.

Held-out lists say which weights are kept; held-out examples of supervised training are the guard: where their
likelihood falls by more than is allowed, the phase ends with the best weights from before.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onesearch.errors import ArtifactError, UsageError
from onesearch.progress import Progress, Task
from onesearch.training.examples import Examples
from onesearch.training.preferences import Preferences
from torch import Tensor, nn

from onesearch_seq2seq.batches import held_out_rows
from onesearch_seq2seq.checkpoints import (
    Checkpoints,
    interruption,
    optimiser_tensors,
    read_tensors,
    restore_optimiser,
    write_tensors,
)
from onesearch_seq2seq.config import PreferenceConfig, Seq2SeqConfig
from onesearch_seq2seq.model import Seq2Seq
from onesearch_seq2seq.preference_loss import pair_weights, printed, printed_weights, s_dpo
from onesearch_seq2seq.preference_paths import Asked, Policy, divergence
from onesearch_seq2seq.scoring import TreeTables
from onesearch_seq2seq.training import State

_BETAS, _CLIP = (0.9, 0.98), 1.0
_BUCKET = 20  # batches whose rows are sorted by length together
_NOISE = 1e-3  # nats: what a batch of another shape may change a likelihood by
_JUDGED, _GUARDED, _COMPARED = (
    1_000,
    500,
    200,
)  # rows looked at: lists, supervised examples, prompts of the KL


class PreferenceTrainer:
    """One phase, resumable from the checkpoints in ``work``."""

    def __init__(
        self,
        model: Seq2Seq,
        config: Seq2SeqConfig,
        stage: PreferenceConfig,
        preferences: Preferences,
        examples: Examples,
        work: Path,
        seed: int,
        user_module: nn.Module | None = None,
        origin: Policy | None = None,
    ) -> None:
        """
        Args:
            model: trained; its ``served`` weights make π. Holds the best weights when the phase ends.
            preferences: lists over the leaves of the examples' tree.
            examples: of supervised training, for their tree and their held-out examples.
            work: folder of the checkpoints.
            seed: of the order of batches.
            user_module: maps histories to prefix vectors; trained along, unless an attribute ``trained`` of
                it is false: then it is not served either.
            origin: what supervised training ended with, to tell how far from it the phase has come; None: the
                network as it is now.

        Raises UsageError where no list can be learnt from.
        """
        self.config, self.stage, self.seed, self.work = config, stage, seed, work
        self.preferences, self.examples = preferences, examples
        serves = getattr(user_module, "trained", True)
        self.policy = Policy(model, user_module if serves else None).eval()
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.origin = self.reference if origin is None else origin.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        self.tables = TreeTables.of(examples.tree, self.device)
        self.vectors = torch.from_numpy(np.array(preferences.vectors)).to(self.device)
        self.guard = held_out_rows(examples, config.served_task, min(_GUARDED, config.held_out_limit), seed)
        self._choose_rows()
        self.fingerprint = self._fingerprint()
        self.checkpoints = Checkpoints(work, self.fingerprint)
        self.state, self.best = State(), dict[str, Tensor]()

    def run(self, progress: Progress) -> dict[str, Any]:
        """Train to the end of the phase, leave the best weights in the model, return figures and curve.

        Figures are those of the weights kept: ``held_out_loss`` of the lists, ``won`` (share of pairs whose
        positive has the higher implicit reward), ``ordered`` (… the higher probability), ``positive`` (how
        much more likely the positives became, nats), ``kl`` (of π from π_ref, nats a prompt), ``kl_origin``
        (of π from the supervised network) and ``held_out_nll`` (of supervised examples, nats a path), each
        with ``…_before`` where it is not 0 then;
        ``stopped_by`` (steps, minutes, patience or guard), ``steps``, ``best_step``, ``seconds``, ``curve``.
        """
        resumed = self._resume(progress)
        self.reference_log_probs = self._reference(progress)
        if not resumed:
            self._judge(progress)
        with progress.task("learning preferences", total=self.stage.steps) as task, interruption() as stopped:
            task.advance(self.state.step)
            while not self.state.finished:
                self._step(task, progress)
                if stopped():
                    self._save()
                    raise KeyboardInterrupt
        return self._finish(progress)

    # -- lists -----------------------------------------------------------------------------------------------

    def _choose_rows(self) -> None:
        """Leaves i64[P, 1 + M], the winner first, without dead ones, and the rows with a pair left."""
        made = self.preferences
        alive = np.isfinite(self.examples.tree.log_mass[-1])
        leaves = np.concatenate([made.ranked.winner[:, None], made.ranked.losers], axis=1).astype(np.int64)
        leaves[(leaves >= 0) & ~alive[leaves]] = -1
        source = made.ranked.source
        useful = (leaves[:, 0] >= 0) & (leaves[:, 1:] >= 0).any(axis=1) & (made.weight[source] > 0)
        self.leaves, self.source = leaves, source
        self.rows = np.flatnonzero(useful & ~made.held_out[source])
        if not len(self.rows):
            raise UsageError("there are no preferences to learn: no list has a positive and a negative")
        held = np.flatnonzero(useful & made.held_out[source])
        judged = held if len(held) else self.rows
        if len(judged) > _JUDGED:
            judged = np.sort(np.random.default_rng([self.seed, 6]).choice(judged, _JUDGED, replace=False))
        self.judged, self.judged_on = judged, "held-out lists" if len(held) else "training lists"
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in batches of like length, in their order of length."""
        lengths = np.diff(self.preferences.prompts.offsets)[self.source[rows]]
        rows = rows[np.argsort(lengths, kind="stable")]
        size = self.stage.batch_size
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    def _batch(self, step: int) -> np.ndarray:
        """The rows of a step: each pass takes all, rows of like length together, in an order by the seed."""
        size = self.stage.batch_size
        epoch, at = divmod(step, -(-len(self.rows) // size))
        if self._epoch[0] != epoch:
            random = np.random.default_rng([self.seed, 5, epoch])
            rows = random.permutation(self.rows)
            buckets = [rows[start : start + size * _BUCKET] for start in range(0, len(rows), size * _BUCKET)]
            batches = [batch for bucket in buckets for batch in self._batches(bucket)]
            self._epoch = epoch, [batches[at] for at in random.permutation(len(batches))]
        return self._epoch[1][at]

    def _visited(self) -> np.ndarray:
        """The rows that the steps of the phase come to."""
        steps = range(min(self.stage.steps, -(-len(self.rows) // self.stage.batch_size)))
        return np.concatenate([self._batch(step) for step in steps])

    def _asked(self, rows: np.ndarray) -> Asked:
        made = self.preferences
        limit = self.config.prompt_limit
        return Asked.of(made.prompts, made.vector, self.vectors, made.histories, self.source[rows], limit)

    def _log_probs(self, policy: Policy, rows: np.ndarray) -> Tensor:
        leaves = torch.from_numpy(self.leaves[rows]).to(self.device)
        return policy.log_probs(self.tables, self._asked(rows), leaves)

    @torch.no_grad()
    def _reference(self, progress: Progress) -> Tensor:
        """log π_ref f32[P, 1 + M] of the rows that will be asked for, NaN of others; computed once, kept."""
        path = self.work / "reference" / f"{self.fingerprint[:32]}.safetensors"
        try:
            return read_tensors(path)["log_probs"].to(self.device)
        except (ArtifactError, KeyError):
            pass
        found = torch.full(self.leaves.shape, torch.nan, device=self.device)
        rows = np.union1d(self._visited(), self.judged)
        with progress.task("reference likelihoods", total=len(rows)) as task, self._precision():
            for batch in self._batches(rows):
                found[torch.from_numpy(batch).to(self.device)] = self._log_probs(self.reference, batch)
                task.advance(len(batch))
        write_tensors(path, {"log_probs": found})
        return found

    # -- steps -----------------------------------------------------------------------------------------------

    def _step(self, task: Task, progress: Progress) -> None:
        state, stage = self.state, self.stage
        if state.step >= stage.steps or self._spent() >= 1:
            state.figures["stopped_by"] = "steps" if state.step >= stage.steps else "minutes"
            state.finished = True
            self._save()
            return
        began = time.monotonic()
        loss = self._learn(self._batch(state.step))
        state.step += 1
        state.seconds += time.monotonic() - began
        if state.step % 20 == 1:
            task.advance(0, note=f"loss {loss:.3f} · {state.step / state.seconds:.1f} steps/s")
        task.advance(1)
        if state.step % stage.eval_every == 0 and state.step < stage.steps:
            self._judge(progress, loss)
        if state.step % stage.checkpoint_every == 0 or state.finished:
            self._save()

    def _learn(self, rows: np.ndarray) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.stage.learning_rate * self._rate()
        with self._precision():
            losses, _ = self._losses(rows)
        weight = torch.from_numpy(self.preferences.weight[self.source[rows]]).to(self.device)
        loss = (losses * weight).sum() / weight.sum()
        if not torch.isfinite(loss):
            raise UsageError(
                f"preference learning diverged at step {self.state.step}: the loss is {loss.item()}; lower "
                "the learning rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), _CLIP)
        self.optimiser.step()
        return loss.item()

    def _losses(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The loss of each row f32[B], and log π f32[B, 1 + M]."""
        stage, ranked = self.stage, self.preferences.ranked
        log_probs = self._log_probs(self.policy, rows)
        implied = stage.beta * (log_probs - self.reference_log_probs[torch.from_numpy(rows).to(self.device)])
        mask = torch.from_numpy(self.leaves[rows, 1:] >= 0).to(self.device)
        best = torch.from_numpy(ranked.winner_reward[rows]).to(self.device)
        others = torch.from_numpy(ranked.loser_rewards[rows]).to(self.device)
        if stage.loss == "s_dpo":
            weights, loss = pair_weights(best, others, stage.weight_floor, stage.weight_cap), s_dpo
        else:
            weights, loss = printed_weights(best, others), printed
        told = implied[:, 0], implied[:, 1:], mask, weights, stage.margin, log_probs[:, 0], stage.keep
        return loss(*told), log_probs

    def _rate(self) -> float:
        """Factor of the learning rate: linear warm-up, then a cosine to zero at the last step.

        The clock has no say in it, so that a phase that no limit cut is the same whenever it is run; one that
        was cut has its best weights.
        """
        done = self.state.step / max(1, self.stage.steps)
        warm = min(1.0, (self.state.step + 1) / max(1, self.stage.warmup))
        return warm * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))

    def _spent(self) -> float:
        """Share of the allowed time that is spent."""
        return self.state.seconds / (60 * self.stage.max_minutes) if self.stage.max_minutes else 0.0

    def _precision(self) -> AbstractContextManager[object]:
        units = (
            torch.cuda.is_bf16_supported()
            if self.device.type == "cuda"
            else torch.cpu._is_avx512_bf16_supported()
        )
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.mixed_precision and bool(units)
        )

    # -- looks -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _judge(self, progress: Progress, loss: float | None = None) -> None:
        """Look at held-out lists and examples; keep the best weights; end the phase where that is due."""
        began, state = time.monotonic(), self.state
        with self._precision():
            found, nll = self._pairs() | {"kl": self._kl(self.reference)}, self._nll()
        state.seconds += time.monotonic() - began
        spent = round(state.seconds, 1)
        state.curve.append({"step": state.step, "loss": loss, **found, "held_out_nll": nll, "seconds": spent})
        guarded = nll is not None and nll > state.curve[0]["held_out_nll"] + self.stage.nll_slack
        if not guarded and found["held_out_loss"] < state.best:
            state.best, state.best_step, state.since_best = found["held_out_loss"], state.step, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.policy.state_dict().items()}
        else:
            state.since_best += 1
        if guarded or state.since_best >= self.stage.patience:
            state.finished = True
            state.figures["stopped_by"] = "guard" if guarded else "patience"
        supervised = "" if nll is None else f", supervised {nll:.4f} nats a path"
        progress.say(
            f"step {state.step}: {self.judged_on} {found['held_out_loss']:.4f}, "
            f"{100 * found['won']:.1f} % of pairs won, KL {found['kl']:.4f}{supervised}"
        )

    def _pairs(self) -> dict[str, float]:
        losses, won, ordered, positive = [], [], [], []
        for rows in self._batches(self.judged):
            loss, log_probs = self._losses(rows)
            moved = log_probs - self.reference_log_probs[torch.from_numpy(rows).to(self.device)]
            mask = torch.from_numpy(self.leaves[rows, 1:] >= 0).to(self.device)
            losses.append(loss)
            won.append((moved[:, :1] > moved[:, 1:] + _NOISE)[mask])
            ordered.append((log_probs[:, :1] > log_probs[:, 1:])[mask])
            positive.append(moved[:, 0])
        return {
            "held_out_loss": torch.cat(losses).mean().item(),
            "won": torch.cat(won).float().mean().item(),
            "ordered": torch.cat(ordered).float().mean().item(),
            "positive": torch.cat(positive).mean().item(),
        }

    def _kl(self, other: Policy) -> float:
        """KL(π ‖ other), nats a prompt, over the prompts of the rows looked at."""
        prompts = np.unique(self.source[self.judged], return_index=True)[1][:_COMPARED]
        random = torch.Generator().manual_seed(self.seed)
        apart = [
            divergence(self.policy, other, self.tables, self._asked(rows), random)
            for rows in self._batches(self.judged[prompts])
        ]
        return torch.cat(apart).mean().item()

    def _nll(self) -> float | None:
        """Weighted mean of −log π of the guard's examples; None without any."""
        if self.guard is None:
            return None
        task, rows = self.examples.sid_tasks[self.guard[0]], self.guard[1]
        vectors = torch.from_numpy(np.array(self.examples.vectors)).to(self.device)
        rows = rows[np.argsort(np.diff(task.prompts.offsets)[rows], kind="stable")]
        total = 0.0
        for start in range(0, len(rows), 100):
            own = rows[start : start + 100]
            limit = self.config.prompt_limit
            asked = Asked.of(task.prompts, task.vector, vectors, task.histories, own, limit)
            leaf = torch.from_numpy(task.leaf[own].astype(np.int64)).to(self.device)
            log_probs = self.policy.log_probs(self.tables, asked, leaf[:, None])[:, 0]
            total -= float(log_probs.double().cpu().numpy() @ task.weight[own].astype(np.float64))
        return total / float(task.weight[rows].sum())

    # -- where it stands -------------------------------------------------------------------------------------

    def _resume(self, progress: Progress) -> bool:
        found = self.checkpoints.read()
        self.optimiser = torch.optim.AdamW(
            self.policy.parameters(), lr=self.stage.learning_rate, betas=_BETAS, weight_decay=0.0
        )
        if found is None:
            return False
        state, tensors, self.best = found
        self.state = State(**{name: state[name] for name in State.__dataclass_fields__})
        own = {k.removeprefix("policy."): v for k, v in tensors.items() if k.startswith("policy.")}
        self.policy.load_state_dict(own)
        restore_optimiser(self.optimiser, tensors)
        progress.say(f"resumed at step {self.state.step} of {self.stage.steps}")
        return True

    def _save(self) -> None:
        tensors = {f"policy.{name}": tensor for name, tensor in self.policy.state_dict().items()}
        tensors.update(optimiser_tensors(self.optimiser))
        self.checkpoints.write(vars(self.state), tensors, self.best, self.state.best_step)

    def _finish(self, progress: Progress) -> dict[str, Any]:
        state = self.state
        if state.curve[-1]["step"] != state.step:
            self._judge(progress)
        self.policy.load_state_dict(self.best)
        self.policy.eval()
        first = state.curve[0]
        with self._precision():
            from_origin = self._kl(self.origin)
        kept = next(entry for entry in state.curve if entry["step"] == state.best_step)
        named = ("held_out_loss", "won", "ordered", "positive", "kl", "held_out_nll")
        return {
            **{name: kept[name] for name in named},
            "kl_origin": from_origin,
            "ordered_before": first["ordered"],
            "held_out_nll_before": first["held_out_nll"],
            "judged_on": self.judged_on,
            "rows": len(self.rows),
            "stopped_by": state.figures.get("stopped_by", "steps"),
            "steps": state.step,
            "best_step": state.best_step,
            "seconds": round(state.seconds, 1),
            "curve": state.curve,
        }

    def _fingerprint(self) -> str:
        """What a checkpoint must agree with: settings, initial weights, tree and lists."""
        made, tree = self.preferences, self.examples.tree
        settings = f"{self.config.model_dump_json()}{self.stage.model_dump_json()}{self.seed}"
        digest = hashlib.sha256(settings.encode())
        arrays = [tensor.detach().cpu().numpy() for tensor in self.policy.state_dict().values()]
        arrays += [*tree.tree.code, *tree.log_mass, made.vectors, made.prompts.values, made.prompts.offsets]
        arrays += [made.vector, made.weight, made.held_out, *vars(made.ranked).values()]
        if made.histories is not None:
            arrays += list(vars(made.histories).values())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
