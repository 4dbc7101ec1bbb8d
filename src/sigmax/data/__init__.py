"""Readers of users' formats, the one in-memory form, and batches."""

from sigmax.data.batches import Batch, Batches
from sigmax.data.dataset import MatchDataset
from sigmax.data.sources import BUILTIN, load_data

__all__ = ["BUILTIN", "Batch", "Batches", "MatchDataset", "load_data"]
