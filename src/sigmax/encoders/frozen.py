"""A frozen pretrained encoder with a trainable linear layer."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sigmax.data.dataset import Indices
from sigmax.data.pictures import key_of
from sigmax.encoders.labels import with_constant
from sigmax.encoders.lengths import by_length
from sigmax.encoders.module import Module, as_inputs, encodes
from sigmax.files import write_bytes

__all__ = ["FrozenEncoder", "cache_folder"]

log = logging.getLogger(__name__)

#: Pictures, and texts, encoded at a time; texts of one length together.
BLOCK, TEXTS = 32, 512


def cache_folder() -> Path:
    """Return the folder of the vectors of frozen encoders: $SIGMAX_CACHE, or ~/.cache/sigmax; it may be emptied."""
    return Path(os.environ.get("SIGMAX_CACHE") or Path.home() / ".cache" / "sigmax")


class FrozenEncoder(Module):
    """Vectors of a pretrained encoder, each coordinate standardised, then a linear layer that is trained.

    Every item is encoded once: the vectors are kept in memory, and on disk for the next training.

    Args:
        trunk: the encoder, a sentence-transformers module.
        linear: for a linear head: no layer of its own, but a last coordinate of 1 that gives every label a bias.
    """

    parts = ("trunk",)
    reads_pictures = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, trunk: nn.Module, *, linear: bool) -> None:
        super().__init__()
        width = encodes(trunk).get_embedding_dimension()
        self.trunk = trunk.requires_grad_(False).eval()
        self.modalities = encodes(trunk).modalities
        self.linear = linear
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.layer: nn.Module = nn.Identity()
        if not linear:
            self.layer = nn.Linear(width, width, bias=False)
            nn.init.eye_(self.layer.weight)
        self._known: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Set the training mode of everything but the trunk, whose batch norms and dropout stay in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def learn(self, items: Sequence[Any], training: Indices) -> None:
        """Encode items, or read their vectors from the cache, and standardise by those that are trained on.

        Args:
            items: texts or pictures.
            training: indices into `items` of those whose vectors get mean 0 and deviation 1.
        """
        keys = [key_of(item) for item in items]
        vectors = self._kept(keys, items)
        self._known = dict(zip(keys, vectors, strict=True))
        seen = vectors[torch.from_numpy(training)]
        self.mean.copy_(seen.mean(0))
        # A coordinate that hardly varies carries no information; dividing by its deviation would amplify noise.
        self.deviation.copy_(seen.std(0, correction=0).clamp_min(1e-3 * float(seen.std())))

    def remember(self, items: Sequence[Any]) -> None:
        """Encode further items, and keep their vectors in memory."""
        new = {key: item for item in items if (key := key_of(item)) not in self._known}
        if new:
            self._known.update(zip(new, self._encode(list(new.values())), strict=True))

    def preprocess(self, inputs: Sequence[Any], **_: Any) -> dict[str, Tensor]:
        """Texts or pictures -> their vectors (b, d), encoded now unless they are known."""
        keys = [key_of(item) for item in inputs]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        made = dict(zip(new, self._encode([inputs[place] for place in new]), strict=True)) if new else {}
        return {"vectors": torch.stack([made[i] if i in made else self._known[key] for i, key in enumerate(keys)])}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, d) to the features."""
        vectors = self.layer((features["vectors"] - self.mean) / self.deviation)
        features["sentence_embedding"] = with_constant(vectors) if self.linear else vectors
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return len(self.mean) + self.linear

    def config(self) -> dict[str, Any]:
        """Return the kind of head."""
        return {"linear": self.linear}

    @torch.no_grad()
    def _encode(self, items: Sequence[Any], told: Callable[[int], None] = lambda _: None) -> Tensor:
        """(b, d) vectors of the trunk on the CPU."""
        device = self.mean.device
        blocks = []
        size = TEXTS if all(isinstance(item, str) for item in items) else BLOCK
        for start in range(0, len(items), size):
            features = encodes(self.trunk).preprocess(as_inputs(self.trunk, items[start : start + size]))
            features = {k: part.to(device) if isinstance(part, Tensor) else part for k, part in features.items()}
            blocks.append(by_length(self.trunk, features).float().cpu())
            told(min(len(items), start + size))
        return torch.cat(blocks)

    def _kept(self, keys: Sequence[str], items: Sequence[Any]) -> Tensor:
        """(n, d) vectors of items, from disk if this trunk has encoded exactly these before."""
        digest = hashlib.blake2b("\0".join(keys).encode(), digest_size=16)
        for name, tensor in self.trunk.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        path = cache_folder() / "vectors" / f"{digest.hexdigest()}.safetensors"
        try:
            vectors: Tensor = load_file(str(path))["vectors"]
            if vectors.shape == (len(items), len(self.mean)):
                return vectors
        except (OSError, SafetensorError, KeyError):
            pass  # never written, or not whole: encoded again
        began = last = time.monotonic()

        def told(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > 5:
                last = time.monotonic()
                left = (last - began) * (len(items) - done) / done
                log.info("Encoding once, %d of %d, %.0f s left.", done, len(items), left)

        vectors = self._encode(items, told)
        try:
            write_bytes(path, save({"vectors": vectors}))
        except OSError as error:
            log.warning("%s: vectors could not be kept for the next training: %s.", path, error.strerror or error)
        return vectors
