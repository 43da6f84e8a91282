"""A network that starts from BART's weights computes what BART computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from onesearch.errors import UsageError
from onesearch.vocabulary import Vocabulary
from onesearch_seq2seq.config import Seq2SeqConfig
from onesearch_seq2seq.learner import Seq2SeqLearner

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def published(examples, tmp_path_factory):
    """A BART of the tiny size with random weights, saved as a published one is; knows two words of ours."""
    folder = tmp_path_factory.mktemp("bart")
    torch.manual_seed(1)
    config = transformers.BartConfig(
        vocab_size=12,
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        activation_function="relu",
        max_position_embeddings=200,
        init_std=0.3,
    )
    bart = transformers.BartModel(config).eval()
    bart.save_pretrained(folder)
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "Ġthing": 4, "Ġ": 5}
    (folder / "vocab.json").write_text(json.dumps(words))
    return folder, bart


def test_the_states_are_barts(published, examples):
    folder, bart = published
    learner = Seq2SeqLearner(Seq2SeqConfig(size="tiny", start_from=str(folder)))
    model = learner._model_for(examples).eval()
    vocabulary: Vocabulary = examples.vocabulary
    ours = [vocabulary.text.token_to_id(token) for token in ("<bos>", "Ġthing", "Ġ", "<eos>")]
    assert None not in ours
    theirs = torch.tensor([[0, 4, 5, 2]])
    prompt = torch.tensor([ours])
    with torch.no_grad():
        memory, bias = model.encode(prompt, torch.ones(1, 4, dtype=torch.bool))
        expected = bart(input_ids=theirs, decoder_input_ids=theirs[:, :3])
        torch.testing.assert_close(memory, expected.encoder_last_hidden_state, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            model.decode(prompt[:, :3], memory, bias), expected.last_hidden_state, atol=1e-5, rtol=1e-4
        )


def test_the_graph_of_such_a_network_agrees_too(published, examples, tmp_path, make_prompt):
    from types import SimpleNamespace

    from onesearch.compiling.runtime import Runtime
    from onesearch_seq2seq.exporting import export
    from onesearch_seq2seq.server import Seq2SeqServer
    from onesearch_seq2seq.training import training_weights

    config = Seq2SeqConfig(size="tiny", start_from=str(published[0]), steer_rank=4)
    learner = Seq2SeqLearner(config)
    model = learner._model_for(examples).eval()
    with torch.no_grad():
        for head in model.heads:
            getattr(head, "up", head).weight.normal_(std=0.3)
        model.served[:4] = training_weights(model)
    export(model, config, tmp_path, "fp32")
    index = SimpleNamespace(live=examples.tree)
    context = SimpleNamespace(
        vocabulary=examples.vocabulary, runtime=Runtime(1), index=index, release=tmp_path, siblings={}
    )
    server = Seq2SeqServer.open(tmp_path, context, config)  # type: ignore[arg-type]
    query = np.zeros((1, examples.vectors.shape[1]), np.float32)
    found = server.search(make_prompt([[1, 12, 2]]), query, examples.tree, 500)
    from onesearch_seq2seq.scoring import TreeTables, branchings, path_log_probs

    tables = TreeTables.of(examples.tree, torch.device("cpu"))
    leaves = torch.from_numpy(found.leaves[0][found.leaves[0] >= 0].astype(np.int64))
    with torch.no_grad():
        memory, bias = model.encode(torch.tensor([[1, 12, 2]]), torch.ones(1, 3, dtype=torch.bool))
        states = model.decode(
            model.sid_inputs(tables.codes[leaves]), memory.expand(len(leaves), -1, -1), bias
        )
        choices = branchings(model, tables, states, torch.from_numpy(query).expand(len(leaves), -1), leaves)
        expected = path_log_probs(choices, model.served[:4], len(leaves)).sum(dim=1)
    np.testing.assert_allclose(found.log_probs[0, : len(leaves)], expected, atol=1e-4)


def test_files_that_do_not_fit_are_named(published, examples, tmp_path):
    with pytest.raises(UsageError, match=r"vocab\.json"):
        Seq2SeqLearner(Seq2SeqConfig(size="tiny", start_from=str(tmp_path)))._model_for(examples)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UsageError, match=r"model\.safetensors is missing"):
        Seq2SeqLearner(Seq2SeqConfig(size="tiny", start_from=str(tmp_path)))._model_for(examples)
    with pytest.raises(UsageError, match="do not fit"):
        Seq2SeqLearner(Seq2SeqConfig(size="small", start_from=str(published[0])))._model_for(examples)
