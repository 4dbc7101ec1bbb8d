"""Sigmax trains models that match things to their right answers, several, one or none, and tells how sure it is."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
