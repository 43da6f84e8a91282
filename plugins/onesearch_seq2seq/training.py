"""Supervised training of one stage: masked loss over the legal children, early stopping on unseen queries."""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onesearch.errors import UsageError
from onesearch.progress import Progress, Task
from onesearch.training.examples import Examples
from torch import Tensor, nn

from onesearch_seq2seq.batches import Batch, BatchOrder, held_out_rows
from onesearch_seq2seq.checkpoints import Checkpoints, interruption, optimiser_tensors, restore_optimiser
from onesearch_seq2seq.config import Seq2SeqConfig, StageConfig
from onesearch_seq2seq.evaluation import Outcome, evaluate, states_of
from onesearch_seq2seq.model import LowRank, Seq2Seq
from onesearch_seq2seq.scoring import TreeTables, branchings, path_log_probs, training_weights
from onesearch_seq2seq.shape import TEXT_START

_BETAS, _WEIGHT_DECAY, _CLIP = (0.9, 0.98), 0.01, 1.0


@dataclass
class State:
    """Where training is; what a checkpoint holds beside tensors."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = -1
    since_best: int = 0
    finished: bool = False
    figures: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)


def sid_loss(
    model: Seq2Seq, tables: TreeTables, batch: Batch, vectors: Tensor, user_module: nn.Module | None = None
) -> Tensor:
    """Weighted mean of -log p(SID | prompt), each level over the legal live children of the prefix."""
    states, query, leaf = states_of(model, tables, batch, vectors, user_module)
    choices = branchings(model, tables, states, query, leaf)
    losses = -path_log_probs(choices, training_weights(model), len(leaf)).sum(dim=1)
    weight = torch.from_numpy(batch.weight).to(losses.device)
    return (losses * weight).sum() / weight.sum()


def text_loss(model: Seq2Seq, batch: Batch, device: torch.device, negatives: int = 0) -> Tensor:
    """Weighted mean over examples of the mean next-token loss of their target texts.

    With ``negatives`` the softmax runs over the batch's own target tokens and so many random others, whose
    share of the sum is scaled up to stand for all others: the full vocabulary costs several times the rest of
    the network.
    """
    assert batch.targets is not None and batch.target_mask is not None, "a batch of a text task"
    targets = torch.from_numpy(batch.targets).to(device)
    mask = torch.from_numpy(batch.target_mask).to(device)
    inputs = F.pad(targets[:, :-1], (1, 0), value=TEXT_START)
    memory, seen = model.encode(
        torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.mask).to(device)
    )
    states = model.decode(inputs, memory, seen)[mask]
    own, wanted = targets[mask].unique(return_inverse=True)
    others = model.shape.text - len(own)
    if 0 < negatives < others:
        drawn = torch.randint(model.shape.text, (negatives,), device=device)
        drawn = drawn[~torch.isin(drawn, own)]
        logits = model.text_logits(states, torch.cat([own, drawn])).float()
        logits[:, len(own) :] += math.log(others / max(1, len(drawn)))
        losses = F.cross_entropy(logits, wanted, reduction="none")
    else:
        losses = F.cross_entropy(model.text_logits(states).float(), own[wanted], reduction="none")
    counts = mask.sum(dim=1)
    weight = (torch.from_numpy(batch.weight).to(device) / counts.clamp(min=1)).repeat_interleave(counts)
    return (losses * weight).sum() / weight.sum()


class StageTrainer:
    """One stage of training, resumable from the checkpoints in ``work``.

    A user module is trained along: where a batch has histories, it makes the prefix vectors. It is in the
    optimiser, in the checkpoints and among the best weights like the network's own layers.
    """

    def __init__(
        self,
        model: Seq2Seq,
        config: Seq2SeqConfig,
        stage: StageConfig,
        examples: Examples,
        work: Path,
        seed: int,
        user_module: nn.Module | None = None,
    ) -> None:
        self.model, self.config, self.stage, self.examples, self.seed = model, config, stage, examples, seed
        self.user_module = user_module
        self.device = next(model.parameters()).device
        # The names in checkpoints: "model.…" and "user.…".
        self.whole = nn.ModuleDict(
            {"model": model} | ({"user": user_module} if user_module is not None else {})
        )
        self.whole.to(self.device)
        self.tables = TreeTables.of(examples.tree, self.device)
        self.vectors = torch.from_numpy(np.array(examples.vectors)).to(self.device)
        self.order = BatchOrder(examples, stage, seed, config.prompt_limit, config.text_limit)
        self.held_out = held_out_rows(examples, config.served_task, config.held_out_limit, seed)
        self.checkpoints = Checkpoints(work, fingerprint(model, config, stage, examples, seed, user_module))
        self.state, self.best = State(), dict[str, Tensor]()

    def run(self, progress: Progress) -> dict[str, Any]:
        """Train to the end of the stage, leave the best weights in the model, return figures and curves."""
        if not self._resume(progress):
            self._start_prior(progress)
        with progress.task("training", total=self.stage.steps) as task, interruption() as interrupted:
            task.advance(self.state.step)
            while not self.state.finished:
                self._step(task, progress)
                if interrupted():
                    self._save()
                    raise KeyboardInterrupt
        return self._finish(progress)

    def _resume(self, progress: Progress) -> bool:
        found = self.checkpoints.read()
        weight_decay = [p for p in self.whole.parameters() if p.dim() > 1]
        plain = [p for p in self.whole.parameters() if p.dim() <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": weight_decay, "weight_decay": _WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
            lr=self.stage.learning_rate,
            betas=_BETAS,
            fused=True,
        )
        if found is None:
            return False
        state, tensors, self.best = found
        self.state = State(**{name: state[name] for name in State.__dataclass_fields__})
        self.whole.load_state_dict(
            {name: tensor for name, tensor in tensors.items() if not name.startswith("optimiser.")}
        )
        restore_optimiser(self.optimiser, tensors)
        progress.say(f"resumed at step {self.state.step} of {self.stage.steps}")
        return True

    def _start_prior(self, progress: Progress) -> None:
        """Measure what there was before the stage, and start an untrained network's prior where held-out
        queries want it, so that the network need not learn that.

        What there was before includes no prefix of an untrained user module: an encoder's export leaves it
        out until it is trained. So a stage that improves nothing leaves what was served before.
        """
        untrained_module = not getattr(self.user_module, "trained", False)
        outcome = self._judge(progress, user_module=None if untrained_module else self.user_module)
        if outcome is None:
            return
        fitted = torch.from_numpy(outcome.served()).to(self.device)
        untrained = not any(bool(weight.any()) for weight in _zero_at_first(self.model))
        if untrained:
            with torch.no_grad():
                self.model.log_prior.copy_(fitted[4].clamp(min=1e-3).log())
                self.model.mass.copy_(fitted[5])

    def _step(self, task: Task, progress: Progress) -> None:
        if self.state.step >= self.stage.steps or self._spent() >= 1:
            self.state.finished = True
            self._save()
            return
        began = time.monotonic()
        step = self.state.step
        loss = self._learn(self.order.batch(step), step)
        self.state.step += 1
        self.state.seconds += time.monotonic() - began
        if step % 20 == 0:
            task.advance(0, note=f"loss {loss:.3f} · {self.state.step / self.state.seconds:.1f} steps/s")
        task.advance(1)
        if self.state.step % self.stage.eval_every == 0 and self.state.step < self.stage.steps:
            self._judge(progress, self.user_module, loss)
            self.state.finished = self.state.since_best >= self.stage.patience
        if self.state.step % self.stage.checkpoint_every == 0 or self.state.finished:
            self._save()

    def _learn(self, batch: Batch, step: int) -> float:
        torch.manual_seed(hash((self.seed, step)) & 0x7FFFFFFF)  # dropout repeats after a resume
        self.whole.train()
        rate = self.stage.learning_rate * self._rate(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with self._precision():
            if batch.leaf is not None:
                loss = sid_loss(self.model, self.tables, batch, self.vectors, self.user_module)
            else:
                loss = text_loss(self.model, batch, self.device, self.config.text_negatives)
        if not torch.isfinite(loss):
            raise UsageError(
                f"training diverged at step {step}: the loss is {loss.item()}; lower the learning rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.whole.parameters(), _CLIP)
        self.optimiser.step()
        return loss.item()

    def _rate(self, step: int) -> float:
        """Factor of the learning rate: linear warm-up, then a cosine to zero at the last step or minute."""
        done = max(step / max(1, self.stage.steps), self._spent())
        return min(1.0, (step + 1) / max(1, self.stage.warmup)) * (
            0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))
        )

    def _spent(self) -> float:
        """Share of the allowed time that is spent."""
        return self.state.seconds / (60 * self.stage.max_minutes) if self.stage.max_minutes else 0.0

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.mixed_precision and _has_bf16()
        )

    def _judge(
        self, progress: Progress, user_module: nn.Module | None, loss: float | None = None
    ) -> Outcome | None:
        """Look at the held-out examples; keep the weights, with those of the parts, if they are the best so
        far."""
        if self.held_out is None:
            return None
        began = time.monotonic()
        with self._precision():
            outcome = evaluate(
                self.model, self.tables, self.examples, *self.held_out, self.vectors, user_module
            )
        if outcome.guided < self.state.best:
            with torch.no_grad():
                self.model.served.copy_(torch.from_numpy(outcome.served()))
            self.state.best, self.state.best_step, self.state.since_best = outcome.guided, self.state.step, 0
            self.state.figures = outcome.figures()
            self.best = {name: tensor.detach().clone() for name, tensor in self.whole.state_dict().items()}
        else:
            self.state.since_best += 1
        self.state.seconds += time.monotonic() - began
        self.state.curve.append(
            {
                "step": self.state.step,
                "loss": loss,
                "held_out_nll": outcome.guided,
                "held_out_nll_prior_only": outcome.alone,
                "seconds": round(self.state.seconds, 1),
            }
        )
        against = f"{outcome.guided:.4f} nats a path, prior alone {outcome.alone:.4f}"
        trained = "" if loss is None else f"; loss {loss:.3f}"
        progress.say(f"step {self.state.step}: held out {against}{trained}")
        return outcome

    def _save(self) -> None:
        tensors: dict[str, Tensor] = dict(self.whole.state_dict())
        tensors.update(optimiser_tensors(self.optimiser))
        self.checkpoints.write(vars(self.state), tensors, self.best, self.state.best_step)

    def _finish(self, progress: Progress) -> dict[str, Any]:
        if self.held_out is None:
            # The weights the network was trained with are all there is to go by.
            with torch.no_grad():
                weights = training_weights(self.model)
                self.model.served.copy_(torch.cat([weights, weights[2:]]))
        else:
            if self.state.curve[-1]["step"] != self.state.step:
                self._judge(progress, self.user_module)
            self.whole.load_state_dict(self.best)
        self.whole.eval()
        return {
            **self.state.figures,
            "steps": self.state.step,
            "best_step": self.state.best_step,
            "seconds": round(self.state.seconds, 1),
            "curve": self.state.curve,
        }


def fingerprint(
    model: Seq2Seq,
    config: Seq2SeqConfig,
    stage: StageConfig,
    examples: Examples,
    seed: int,
    user_module: nn.Module | None = None,
) -> str:
    """What a checkpoint must agree with: settings, initial weights, tree and examples."""
    digest = hashlib.sha256(f"{config.model_dump_json()}{stage.model_dump_json()}{seed}".encode())
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    for name, tensor in user_module.state_dict().items() if user_module is not None else ():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    arrays = [*examples.tree.tree.code, *examples.tree.log_mass, examples.vectors]
    for task in examples.sid_tasks:
        digest.update(f"{task.name}:{examples.share.get(task.name)}".encode())
        arrays += [
            task.prompts.values,
            task.prompts.offsets,
            task.vector,
            task.leaf,
            task.weight,
            task.held_out,
        ]
        if user_module is not None and task.histories is not None:
            arrays += [task.histories.values, task.histories.mask, task.histories.row]
    for text_task in examples.text_tasks:
        digest.update(f"{text_task.name}:{examples.share.get(text_task.name)}".encode())
        arrays += [
            text_task.prompts.values,
            text_task.prompts.offsets,
            text_task.targets.values,
            text_task.weight,
        ]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _zero_at_first(model: Seq2Seq) -> list[Tensor]:
    """The weights that are zero in a network that was never trained."""
    return [
        head.up.weight if isinstance(head, LowRank) else head.weight for head in (*model.heads, *model.steer)
    ]


def _has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())
