"""Exported models: one ONNX file with its candidates beside it, written from a model and answered without PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
