"""From logits to presence, any right, and decisions: curves, their fits, and rules with promises."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
