"""Sigmax trains models that match things to their right answers, several, one or none, and tells how sure it is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigmax.errors import DataError
from sigmax.explain import explain, explain_logits
from sigmax.losses import SigmoidLoss, SoftmaxLoss
from sigmax.positives import Positives

if TYPE_CHECKING:
    from sigmax.classifier import SigmaxClassifier
    from sigmax.comparison.compare import compare
    from sigmax.comparison.results import Budget, Comparison
    from sigmax.data import MatchDataset, load_data
    from sigmax.evaluation import Evaluation, calibrate, evaluate
    from sigmax.mining import mine
    from sigmax.model.dual_encoder import DualEncoder, load
    from sigmax.training.settings import Settings
    from sigmax.training.train import train

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Comparison",
    "DataError",
    "DualEncoder",
    "Evaluation",
    "MatchDataset",
    "Positives",
    "Settings",
    "SigmaxClassifier",
    "SigmoidLoss",
    "SoftmaxLoss",
    "calibrate",
    "compare",
    "evaluate",
    "explain",
    "explain_logits",
    "load",
    "load_data",
    "mine",
    "train",
]

#: Names that bring scikit-learn or transformers with them are imported when they are first used.
_LATER = {
    "SigmaxClassifier": "classifier",
    "Budget": "comparison",
    "Comparison": "comparison",
    "compare": "comparison",
    "MatchDataset": "data",
    "load_data": "data",
    "Evaluation": "evaluation",
    "calibrate": "evaluation",
    "evaluate": "evaluation",
    "mine": "mining",
    "DualEncoder": "model",
    "load": "model",
    "Settings": "training",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _LATER:
        raise AttributeError(f"module 'sigmax' has no attribute {name!r}")
    value = getattr(import_module(f"sigmax.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
