"""The learning half of the generator: fit stage by stage, save, load, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from onesearch.contracts.generator import GeneratorLearner, Origin, Phase, Stage
from onesearch.errors import ArtifactError, UsageError
from onesearch.progress import Progress
from onesearch.training.examples import Examples
from onesearch.training.preferences import Preferences
from pydantic import BaseModel

from onesearch_seq2seq.bart import start_from_bart
from onesearch_seq2seq.checkpoints import read_tensors, write_json, write_tensors
from onesearch_seq2seq.code_embeddings import start_from_codes
from onesearch_seq2seq.config import PreferenceConfig, Seq2SeqConfig, StageConfig
from onesearch_seq2seq.model import Seq2Seq
from onesearch_seq2seq.preference import PreferenceTrainer
from onesearch_seq2seq.preference_paths import Policy
from onesearch_seq2seq.shape import Shape
from onesearch_seq2seq.training import StageTrainer

_STAGES: tuple[Stage, ...] = ("alignment", "cooccurrence", "personalisation", "refresh")
_PHASES: tuple[Phase, ...] = ("phase_1", "phase_2")


class Seq2SeqLearner(GeneratorLearner):
    """Trains the network. The first :meth:`fit` makes it, from the seed (or from published weights)."""

    Config: ClassVar[type[BaseModel]] = Seq2SeqConfig
    config: Seq2SeqConfig
    learns_preferences = True

    def __init__(self, config: BaseModel) -> None:
        assert isinstance(config, Seq2SeqConfig)
        super().__init__(config)
        self.prefix_width = config.dimensions.width
        self.model: Seq2Seq | None = None

    def fit(
        self,
        stage: Stage,
        examples: Examples,
        work: Path,
        progress: Progress,
        user_module: torch.nn.Module | None = None,
    ) -> dict[str, Any]:
        """Run one SFT stage, resumable from checkpoints in ``work``; return curves and figures.

        ``user_module`` makes prefix vectors f32[B, P, d] of the histories of the SID tasks that have them; it
        is trained along on the network's device and ends in eval mode with its best weights. What there was
        before the stage is judged without its prefix, unless an attribute ``trained`` of it is true.

        Figures: ``held_out_nll`` and ``held_out_nll_prior_only`` (nats a path, cross-validated over the
        weights of the parts), ``levels`` (the same level by level, with the weights), ``steps``, ``seconds``,
        ``curve``.
        Raises UsageError where the examples do not fit the network or there is nothing to learn from.
        """
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        model = self._model_for(examples)
        settings: StageConfig = getattr(self.config, stage)
        seed = self.config.seed * len(_STAGES) + _STAGES.index(stage)
        trainer = StageTrainer(model, self.config, settings, examples, work / stage, seed, user_module)
        return trainer.run(progress)

    def prefer(
        self,
        phase: Phase,
        preferences: Preferences,
        examples: Examples,
        work: Path,
        progress: Progress,
        user_module: torch.nn.Module | None = None,
        origin: Origin | None = None,
    ) -> dict[str, Any]:
        """Run one phase of list-wise DPO, resumable from checkpoints in ``work``.

        Figures: see :meth:`onesearch_seq2seq.preference.PreferenceTrainer.run`.
        Raises UsageError where no list can be learnt from.
        """
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        model = self._model_for(examples)
        if user_module is not None:
            user_module.to(next(model.parameters()).device)
        before = None
        if origin is not None and isinstance(origin.learner, Seq2SeqLearner):
            module = origin.user_module if getattr(origin.user_module, "trained", True) else None
            before = Policy(origin.learner.trained(), module).to(next(model.parameters()).device)
        settings: PreferenceConfig = getattr(self.config, phase)
        seed = self.config.seed * len(_PHASES) + _PHASES.index(phase)
        trainer = PreferenceTrainer(
            model, self.config, settings, preferences, examples, work / phase, seed, user_module, before
        )
        return trainer.run(progress)

    def _model_for(self, examples: Examples) -> Seq2Seq:
        vocabulary = examples.vocabulary
        dimension = examples.tree.vectors[0].shape[1]
        shape = Shape(vocabulary.size, vocabulary.text_size, tuple(examples.tree.tree.levels), dimension)
        if self.model is None:
            torch.manual_seed(self.config.seed)
            self.model = Seq2Seq(shape, self.config)
            start_from_codes(self.model, examples.tree, self.config.seed)
            if self.config.start_from:
                start_from_bart(self.model, vocabulary, Path(self.config.start_from))
        elif self.model.shape != shape:
            raise UsageError(f"the generator was trained for {self.model.shape}, the examples are of {shape}")
        return self.model.cuda() if torch.cuda.is_available() else self.model

    def save(self, folder: Path) -> None:
        """Write ``shape.json`` and ``weights.safetensors``."""
        model = self.trained()
        write_tensors(folder / "weights.safetensors", dict(model.state_dict()))
        write_json(folder / "shape.json", model.shape.as_json())

    @classmethod
    def load(cls, folder: Path, config: BaseModel) -> Self:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        learner = cls(config)
        path = folder / "shape.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            shape = Shape(about["vocabulary"], about["text"], tuple(about["levels"]), about["vector"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: not the shape of a generator ({error})") from error
        weights = read_tensors(folder / "weights.safetensors")
        learner.model = Seq2Seq(shape, learner.config).eval()
        try:
            learner.model.load_state_dict(weights)
        except RuntimeError as error:
            message = str(error).split("\n", 2)[:2]
            raise ArtifactError(
                f"{folder / 'weights.safetensors'}: does not fit ({' '.join(message)})"
            ) from error
        return learner

    def export(self, folder: Path) -> None:
        """Write the search graph and what the server needs to open it."""
        from onesearch_seq2seq.exporting import export

        export(self.trained(), self.config, folder)

    def trained(self) -> Seq2Seq:
        """The network. Raises UsageError before the first fit."""
        if self.model is None:
            raise UsageError("the generator has not been fitted yet")
        return self.model
