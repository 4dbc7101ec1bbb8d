"""Training: settings, and the run."""

from sigmax.training.settings import PRECISIONS, Settings
from sigmax.training.train import build_model, loss_floor, train
from sigmax.training.trainer import Logged, Progress

__all__ = ["PRECISIONS", "Logged", "Progress", "Settings", "build_model", "loss_floor", "train"]
