from .export import Export as Export
from .export import export as export
from .onnx_model import OnnxModel as OnnxModel
from .onnx_model import load as load
