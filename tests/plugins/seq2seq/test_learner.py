"""Save, load, export; what the halves import; errors that name the file."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onesearch.errors import ArtifactError, UsageError
from onesearch.progress import SilentProgress
from onesearch_seq2seq.config import Seq2SeqConfig, StageConfig
from onesearch_seq2seq.learner import Seq2SeqLearner
from onesearch_seq2seq.plugin import generator


@pytest.fixture(scope="module")
def learner(examples, tmp_path_factory):
    config = Seq2SeqConfig(size="tiny", steer_rank=4, alignment=StageConfig(steps=4, batch_size=16))
    learner = Seq2SeqLearner(config)
    learner.fit("alignment", examples, tmp_path_factory.mktemp("work"), SilentProgress())
    return learner


def test_save_and_load(learner, tmp_path):
    learner.save(tmp_path)
    again = Seq2SeqLearner.load(tmp_path, learner.config)
    for name, tensor in again.trained().state_dict().items():
        assert torch.equal(tensor, learner.trained().state_dict()[name])


def test_load_names_what_does_not_fit(learner, tmp_path):
    with pytest.raises(ArtifactError, match=r"shape\.json"):
        Seq2SeqLearner.load(tmp_path, learner.config)
    learner.save(tmp_path)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors.*does not fit"):
        Seq2SeqLearner.load(tmp_path, Seq2SeqConfig(size="small"))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        Seq2SeqLearner.load(tmp_path, learner.config)


def test_before_the_first_fit(tmp_path):
    with pytest.raises(UsageError, match="not been fitted"):
        Seq2SeqLearner(Seq2SeqConfig()).export(tmp_path)


def test_examples_of_another_tree_are_refused(learner, examples, world, tmp_path):
    from dataclasses import replace

    levels = (8, 6, 5)
    other = world.make_index(world.random_sids(levels, 20, 0), levels).live
    with pytest.raises(UsageError, match="was trained for"):
        learner.fit("alignment", replace(examples, tree=other), tmp_path, SilentProgress())


def test_exported_graph_names_its_tensors(learner, tmp_path):
    learner.export(tmp_path)
    session = ort.InferenceSession(str(tmp_path / "search.onnx"))
    types = {node.name: node.type for node in session.get_inputs()}
    assert types["ids"] == "tensor(int32)" and types["query_vec"] == "tensor(float)"
    assert types["vectors_2"] == "tensor(float16)" and types["beams"] == "tensor(int64)"
    assert [node.name for node in session.get_outputs()] == [
        "leaves", "log_probs", "dropped", "dropped_mass", "branches",
    ]  # fmt: skip
    about = json.loads((tmp_path / "generator.json").read_text())
    assert about["precision"] == "int8" and about["levels"] == [8, 6, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "arrays.safetensors",
        "generator.json",
        "native.safetensors",
        "search.onnx",
    ]


def test_int8_weights_are_by_channel(learner, tmp_path):
    import onnx

    learner.export(tmp_path)
    model = onnx.load(str(tmp_path / "search.onnx"))
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) > 10
    scales = {node.input[3] for node in products}
    sizes = [list(c.dims) for c in model.graph.initializer if c.name in scales]
    assert all(len(size) == 1 and size[0] > 1 for size in sizes)
    # Its activations have one scale a tensor: results would depend on what else is in the batch.
    assert not [node for node in model.graph.node if node.op_type == "DynamicQuantizeMatMul"]


def test_offer_and_serving_half_import_without_torch_or_onnx():
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'pyarrow', 'scipy'): sys.modules[name] = None\n"
        "from onesearch_seq2seq.plugin import generator\n"
        "print(generator()[0].server_class().__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Seq2SeqServer", done.stderr


def test_offer():
    (offer,) = generator()
    assert offer.learner_class() is Seq2SeqLearner
    assert offer.config().size == "small"
    for name, field in offer.config.model_fields.items():
        assert field.description, f"{name} has no documentation"


def test_same_seed_same_network(examples):
    first, second = (Seq2SeqLearner(Seq2SeqConfig(size="tiny", seed=3)) for _ in range(2))
    for learner in (first, second):
        learner._model_for(examples)
    np.testing.assert_array_equal(first.trained().keys.detach(), second.trained().keys.detach())
