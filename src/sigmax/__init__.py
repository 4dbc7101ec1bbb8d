"""Sigmax trains models that match things to their right answers, and tells how sure it is."""

from sigmax.losses import SigmoidLoss, SoftmaxLoss
from sigmax.positives import Positives

__all__ = ["Positives", "SigmoidLoss", "SoftmaxLoss"]
