"""What each of the four components promises to the platform."""

from onesearch.contracts.generator import GeneratorLearner, GeneratorServer, Origin, SearchResult
from onesearch.contracts.offers import Learner, Offer, Role, Server, ServingContext
from onesearch.contracts.reward import Candidates, RewardLearner, RewardServer
from onesearch.contracts.tokenizer import Keyword, TextRole, TokenizerLearner, TokenizerServer
from onesearch.contracts.user_encoder import (
    Prompt,
    RawPrompt,
    ShopperState,
    UserEncoderLearner,
    UserEncoderServer,
)

__all__ = [
    "Candidates",
    "GeneratorLearner",
    "GeneratorServer",
    "Keyword",
    "Learner",
    "Offer",
    "Origin",
    "Prompt",
    "RawPrompt",
    "RewardLearner",
    "RewardServer",
    "Role",
    "SearchResult",
    "Server",
    "ServingContext",
    "ShopperState",
    "TextRole",
    "TokenizerLearner",
    "TokenizerServer",
    "UserEncoderLearner",
    "UserEncoderServer",
]
