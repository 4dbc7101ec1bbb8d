"""Contenders trained alike on one data set, measured and compared."""

from sigmax.comparison.compare import compare
from sigmax.comparison.contenders import CONTENDERS, Contender, contenders_for
from sigmax.comparison.results import Budget, Comparison, Result, Training, Trial

__all__ = [
    "CONTENDERS",
    "Budget",
    "Comparison",
    "Contender",
    "Result",
    "Training",
    "Trial",
    "compare",
    "contenders_for",
]
