"""Sigmax in sentence-transformers: losses, a batch sampler and an evaluator for its trainers.

Where `MultipleNegativesRankingLoss(model)` stood, `sigmax.sentence_transformers.SoftmaxLoss(model)` takes the same
columns and knows which of a batch's texts are right for more than one anchor. `RerankLoss` trains cross-encoders.
"""

from sigmax.sentence_transformers.evaluator import MatchEvaluator
from sigmax.sentence_transformers.graph import known_pairs
from sigmax.sentence_transformers.losses import SentenceMatchLoss, SigmoidLoss, SoftmaxLoss
from sigmax.sentence_transformers.reranking import RerankLoss
from sigmax.sentence_transformers.sampler import MultiPositiveBatchSampler

__all__ = [
    "MatchEvaluator",
    "MultiPositiveBatchSampler",
    "RerankLoss",
    "SentenceMatchLoss",
    "SigmoidLoss",
    "SoftmaxLoss",
    "known_pairs",
]
