"""Encoders: queries and candidates to vectors, as sentence-transformers modules."""

from sigmax.encoders.build import ENCODERS, build_towers, default_encoder, defaults_of
from sigmax.encoders.frozen import FrozenEncoder, open_pictures
from sigmax.encoders.images import AUGMENTATIONS, PictureEncoder
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.module import load_encoder, save_encoder
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.encoders.plan import HEADS, Defaults, Encoder, Plan, Towers

__all__ = [
    "AUGMENTATIONS",
    "ENCODERS",
    "HEADS",
    "Defaults",
    "Encoder",
    "FrozenEncoder",
    "LabelTable",
    "NgramEmbedding",
    "PictureEncoder",
    "Plan",
    "Towers",
    "build_towers",
    "default_encoder",
    "defaults_of",
    "load_encoder",
    "open_pictures",
    "save_encoder",
]
