"""Where candidates live and are searched: vectors in memory or mapped, an index file, PostgreSQL."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
