from onesearch_museq.config import MuSeqConfig
from onesearch_museq.learner import MuSeqLearner
from onesearch_museq.plugin import user_encoder
from onesearch_museq.server import MuSeqServer


def test_the_offers() -> None:
    plain, full = user_encoder()
    assert (plain.name, full.name) == ("passthrough", "museq")
    assert full.learner_class() is MuSeqLearner and full.server_class() is MuSeqServer
    assert full.config is MuSeqConfig and full.config.model_validate(full.quick) != full.config()
