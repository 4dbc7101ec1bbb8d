"""The base class of Sigmax's encoders: one save and load, one registry of their types, and folders of encoders.

`SentenceTransformer(folder)` reads its own modules as they are. For ours it asks for trust_remote_code=True: without
it, sentence-transformers imports no class from outside its own package, installed or not. What is imported then is the
installed Sigmax; a folder holds no code. `DualEncoder.as_sentence_transformer` needs no such consent: it passes the
modules already built.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sigmax.data.normal import normal
from sigmax.data.pictures import Picture
from sigmax.errors import DataError, first_line

__all__ = ["Module", "as_inputs", "load_encoder", "module_folder", "save_encoder"]

#: Types of sentence-transformers whose files a module of ours reads without importing that package, and its home.
_STAND_INS = {
    "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding": "sigmax.encoders.static",
    "sentence_transformers.models.StaticEmbedding": "sigmax.encoders.static",
}


class Module(nn.Module):
    """An encoder in the protocol of sentence-transformers modules, saved as config.json and model.safetensors.

    A subclass defines `preprocess` (inputs -> features), `forward` (adds "sentence_embedding" to the features) and
    `get_embedding_dimension`; with `config` and `restore` it says what is saved beside the weights. Defining it
    registers it under its type, so that `load_encoder` finds it.
    """

    #: Every subclass by the types that modules.json may name.
    types: ClassVar[dict[str, type[Module]]] = {}
    #: The type under which it is saved; if not given, the path of its module and its name.
    saved_type: ClassVar[str] = ""
    #: Other types that it reads.
    also_reads: ClassVar[tuple[str, ...]] = ()
    #: Names of encoders within this one: each is saved in a folder of its own.
    parts: ClassVar[tuple[str, ...]] = ()
    #: Read by sentence-transformers: the first module's files lie in the model's own folder.
    save_in_root = True
    #: Names of parameters of which a batch reads few rows, through `sigmax.encoders.rows`.
    tables: ClassVar[tuple[str, ...]] = ()
    #: What is encoded: "text", "image".
    modalities: Sequence[str] = ("text",)
    #: Whether pictures are passed as they are, or opened first.
    reads_pictures = False

    def __init_subclass__(cls, **given: Any) -> None:
        """Register the type."""
        super().__init_subclass__(**given)
        own = f"{cls.__module__}.{cls.__qualname__}"
        cls.saved_type = vars(cls).get("saved_type", own)
        Module.types.update(dict.fromkeys((own, cls.saved_type, *vars(cls).get("also_reads", ())), cls))

    def config(self) -> dict[str, Any]:
        """Return what `restore` needs beside the weights, for config.json."""
        return {}

    @classmethod
    def restore(cls, config: dict[str, Any], weights: Mapping[str, Tensor], **parts: nn.Module) -> Module:
        """Build the module that was saved; its weights are loaded afterwards.

        Args:
            config: what `config` returned.
            weights: what was saved, for sizes.
            parts: the encoders named in `parts`.
        """
        return cls(**parts, **config)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write config.json, model.safetensors and a folder for each part."""
        folder = Path(output_path)
        for name in self.parts:
            save_encoder(getattr(self, name), folder / name)
        text = json.dumps(self.config(), indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file(self._own_weights(), str(folder / "model.safetensors"))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **given: Any) -> Module:
        """Read what `save` wrote; the arguments are those that sentence-transformers passes to its modules.

        Raises:
            DataError: weights that do not belong to this module.
        """
        folder = module_folder(model_name_or_path, subfolder, **given)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(str(folder / "model.safetensors"))
        module = cls.restore(config, weights, **{name: load_encoder(folder / name) for name in cls.parts})
        expected = module._own_weights()
        if expected.keys() != weights.keys():
            raise DataError(
                f"{folder}/model.safetensors: expected the tensors {', '.join(expected)}, got {', '.join(weights)}."
            )
        module.load_state_dict(weights, strict=False, assign=True)  # as the file has them, mapped: nothing is copied
        return module

    def _own_weights(self) -> dict[str, Tensor]:
        """All tensors but those of the parts."""
        within = tuple(f"{name}." for name in self.parts)
        return {
            name: tensor.detach().contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith(within)
        }


class Encodes(Protocol):
    """What is asked of an encoder, one of ours or of sentence-transformers; `nn.Module` promises none of it."""

    modalities: Sequence[str]

    def preprocess(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Turn inputs into features."""

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""

    def save(self, path: str, *, create_model_card: bool) -> None:
        """Write a folder."""


def encodes(module: nn.Module) -> Encodes:
    """Return the module as the encoder that it is, for the type checker."""
    return cast(Encodes, module)


def save_encoder(encoder: nn.Module, folder: Path) -> None:
    """Write an encoder as a sentence-transformers model folder."""
    folder.mkdir(parents=True)
    if not isinstance(encoder, Module):
        encodes(encoder).save(str(folder), create_model_card=False)
        return
    encoder.save(str(folder))
    modules = [{"idx": 0, "name": "0", "path": "", "type": encoder.saved_type}]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def load_encoder(folder: Path) -> nn.Module:
    """Read an encoder that `save_encoder` wrote. Only Sigmax itself and sentence-transformers are imported.

    Raises:
        DataError: not a sentence-transformers model folder, or one with a module of a package that is not imported.
    """
    listing = folder / "modules.json"
    if not listing.exists():
        raise DataError(f"{folder}: expected a sentence-transformers model folder, got one without modules.json.")
    types = [entry["type"] for entry in json.loads(listing.read_text(encoding="utf-8"))]
    if len(types) == 1:
        home = _STAND_INS.get(types[0], types[0].rpartition(".")[0])
        if home.startswith("sigmax.encoders."):
            try:
                importlib.import_module(home)  # registers it
            except (ImportError, ValueError) as error:
                raise DataError(
                    f"{folder}: the encoder is a {types[0]!r}, which this version of Sigmax does not have: "
                    f"{first_line(error)}"
                ) from error
        if types[0] in Module.types:
            return Module.types[types[0]].load(str(folder))
        if not home.startswith("sentence_transformers."):
            raise DataError(f"{folder}: the encoder is a {types[0]}. Import {home} before loading: it registers it.")
    from sentence_transformers import SentenceTransformer

    try:
        encoder: nn.Module = SentenceTransformer(str(folder))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise DataError(f"{folder}: the encoder did not load: {first_line(error)}") from error
    return encoder


def module_folder(model_name_or_path: str, subfolder: str = "", **given: Any) -> Path:
    """Return the folder of a module's files; those of a model on the hub are fetched as sentence-transformers does.

    Args:
        model_name_or_path: a folder, or user/name on the hub.
        subfolder: the module's folder within it.
        given: token, cache_folder, revision and local_files_only count; modules are given more.
    """
    if Path(model_name_or_path).is_dir():
        return Path(model_name_or_path, subfolder)
    from sentence_transformers.util import load_dir_path

    wanted = ("token", "cache_folder", "revision", "local_files_only")
    hub = {name: given[name] for name in wanted if name in given}
    return Path(load_dir_path(model_name_or_path, subfolder=subfolder, **hub))


def as_inputs(encoder: nn.Module, items: Sequence[Any]) -> list[Any]:
    """Give an encoder what it reads: texts in their normal form, and pictures opened if it reads images of PIL.

    This is the one door: a text that looks the same has the same vector, however it was typed.
    """
    texts = [normal(item) if isinstance(item, str) else item for item in items]
    if getattr(encoder, "reads_pictures", False):
        return texts
    return [item.image().convert("RGB") if isinstance(item, Picture) else item for item in texts]
