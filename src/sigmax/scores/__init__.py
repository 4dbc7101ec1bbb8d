"""Scores from anywhere: tables of scored candidates become presences, promises and answers, as a model's logits do."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
