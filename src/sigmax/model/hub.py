"""Model folders on the Hugging Face hub: fetched and published."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from sigmax.errors import DataError, first_line

__all__ = ["FILES", "fetch", "is_hub_name", "publish"]

#: What is fetched of a repository: what model folders hold, tokenizers included. No pickle, no code.
FILES = ("*.json", "*.jsonl", "*.safetensors", "*.parquet", "*.txt", "*.model", "*.jinja", "README.md")


def is_hub_name(name: str) -> bool:
    """Whether a text could be the name of a repository, such as user/name."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the folder in the hub's cache that holds a model, downloaded if it is not there yet.

    Private models need `hf auth login` or the environment variable HF_TOKEN.

    Args:
        name: user/name.
        revision: a branch, tag or commit; None for the newest.

    Raises:
        DataError: no such model or revision, none of Sigmax, or the hub cannot be reached and the cache has none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except RevisionNotFoundError as error:
        raise DataError(f"{name}: the model on the hub has no revision {revision!r}.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            f"{name}: no such folder, and no such model on the Hugging Face hub. If it is private, log in first: hf "
            "auth login."
        ) from error
    except LocalEntryNotFoundError as error:
        raise DataError(
            f"{name}: no such folder. On the Hugging Face hub it could not be looked for, and the hub's cache has no "
            "model of that name: without a network only models that were loaded before are there."
        ) from error
    except (OSError, HTTPError) as error:
        raise DataError(f"{name}: no such folder, and the Hugging Face hub refused: {first_line(error)}") from error
    if not (folder / "sigmax.json").exists():
        raise DataError(f"{name}: the repository on the hub holds no model of Sigmax (no sigmax.json).")
    return folder


def publish(
    write: Callable[[Path], None], name: str, parts: Iterable[str], private: bool = False, token: str | None = None
) -> str:
    """Upload a model folder as one commit.

    Args:
        write: writes the folder, as `DualEncoder.save` does.
        name: user/name; made if it is not there.
        parts: files and folders that are Sigmax's: those in the repository that the folder lacks are removed.
        private: whether a repository that is made is.
        token: None for the one of `hf auth login` or HF_TOKEN.

    Returns:
        The address of the repository.

    Raises:
        DataError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError

    api = HfApi(token=token, library_name="sigmax")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        write(folder)
        try:
            made = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=made.repo_id,
                folder_path=folder,
                commit_message="Model trained with Sigmax",
                delete_patterns=[pattern for part in parts for pattern in (part, f"{part}/*")],
            )
        except (HFValidationError, LocalTokenNotFoundError, HTTPError, ConnectionError) as error:
            raise DataError(
                f"{name}: could not be published ({first_line(error)}). It takes a name such as user/name, a network, "
                "and a token that may write: hf auth login."
            ) from error
    return str(made)
