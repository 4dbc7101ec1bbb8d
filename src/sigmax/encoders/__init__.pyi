from .augmentations import AUGMENTATIONS
from .build import ENCODERS, build_towers, defaults_of
from .choose import choose_encoder
from .frozen import FrozenEncoder
from .images import PictureEncoder
from .labels import LabelTable
from .module import Module, as_inputs, load_encoder, save_encoder
from .ngrams import NgramEmbedding
from .plan import HEADS, Defaults, Encoder, Plan, Towers
from .static import StaticVectors

__all__ = [
    "AUGMENTATIONS",
    "ENCODERS",
    "HEADS",
    "Defaults",
    "Encoder",
    "FrozenEncoder",
    "LabelTable",
    "Module",
    "NgramEmbedding",
    "PictureEncoder",
    "Plan",
    "StaticVectors",
    "Towers",
    "as_inputs",
    "build_towers",
    "choose_encoder",
    "defaults_of",
    "load_encoder",
    "save_encoder",
]
