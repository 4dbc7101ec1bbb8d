"""Watch over a model in use: are its promises kept, are its queries those of dev, what does feedback change."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
