"""A picture as a query: a file, its bytes or its pixels, decoded deterministically and checked before training."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sigmax.errors import DataError

__all__ = [
    "ENDINGS",
    "MAX_PIXELS",
    "Advance",
    "Picture",
    "Query",
    "as_picture",
    "check_pictures",
    "digests",
    "key_of",
    "pixel_batch",
]

#: Called with (share done in [0, 1], what is being done) as the work proceeds.
Advance = Callable[[float, str], None]

#: What is read. Pillow knows more, and hands some of it (EPS) to other programs.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
#: File endings that are taken for pictures; what is inside is told from the content. Those of formats that are not
#: read are among them, so that such files are refused and not overlooked.
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".svg", ".tga", ".psd", ".ico"}
    | {".pcx", ".eps", ".dds", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw", ".dcm"}
)
#: A picture with more pixels is refused before it is unpacked: a small file can hold a sheet of any size. Pillow warns
#: of more than 89 million.
MAX_PIXELS = 80_000_000
#: Bytes of pixels that are kept, so that files are decoded once and not once an epoch.
KEPT_BYTES = 1 << 30

Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture. Two are equal if their files, or their pixels, are the same byte for byte.

    Args:
        name: what people know it by, such as its file name.
        source: a file, the bytes of one, or (height, width) or (height, width, 3) pixels in uint8.
    """

    name: str
    source: Path | bytes | Pixels

    @cached_property
    def digest(self) -> str:
        """Hash of the file's bytes, or of the pixels."""
        hashed = hashlib.blake2b(digest_size=16)
        if isinstance(self.source, np.ndarray):
            hashed.update(repr(self.source.shape).encode())
            hashed.update(np.ascontiguousarray(self.source).data)
        else:
            hashed.update(self._bytes())
        return hashed.hexdigest()

    def image(self, least: int | None = None) -> Image.Image:
        """Return the picture upright, in mode L (grey) or RGB; transparent parts are white.

        Args:
            least: a JPEG may be decoded at a half, a quarter or an eighth, while both sides stay at least this long.

        Raises:
            DataError: no picture, a broken one, or one of more than `MAX_PIXELS`.
        """
        if isinstance(self.source, np.ndarray):
            return Image.fromarray(self.source)
        with self._opened() as image:
            if least is not None:
                image.draft(None, (least, least))
            return _plain(ImageOps.exif_transpose(image))

    def form(self) -> tuple[int, int, str]:
        """Width, height and mode of what `image` returns; most formats say it in their header.

        Raises:
            DataError: see `image`.
        """
        if isinstance(self.source, np.ndarray):
            height, width = self.source.shape[:2]
            return width, height, "L" if self.source.ndim == 2 else "RGB"
        with self._opened() as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            if turned and image.format != "TIFF":  # of which Pillow gives the upright size already
                width, height = height, width
            return width, height, _plain_mode(image)

    def pixels(self, size: int, mode: str) -> Pixels:
        """Return (size, size, 1 or 3) pixels: resized to a square, ignoring the aspect ratio, in mode "L" or "RGB".

        Raises:
            DataError: see `image`.
        """
        if isinstance(self.source, np.ndarray) and self.source.shape == (
            (size, size) if mode == "L" else (size, size, 3)
        ):
            return self.source.reshape(size, size, -1)
        key = self.digest, size, mode
        kept = _kept.get(key)
        if kept is None:
            image = self.image(least=size).convert(mode)
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
            kept = np.asarray(image, dtype=np.uint8).reshape(size, size, -1)
            _kept.add(key, kept)
        return kept

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        """Open the file, its header read. Whatever goes wrong with it inside the block becomes a DataError."""
        data = self._bytes()
        if not data:
            raise DataError(f"{self.name}: the file is empty.")
        try:
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{self.name}: {image.width:,} × {image.height:,} pixels, more than {MAX_PIXELS:,}. Shrink it."
                    )
                yield image
        except (DataError, MemoryError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(f"{self.name}: more than {MAX_PIXELS:,} pixels. Shrink it.") from None
        except UnidentifiedImageError:
            raise DataError(f"{self.name}: not a picture in a known format ({', '.join(_formats())}).") from None
        except Exception as error:  # decoders raise whatever a broken file makes them stumble over
            raise DataError(f"{self.name}: the picture cannot be decoded: {error}.") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<picture {self.name}>"

    def __str__(self) -> str:
        return self.name

    def _bytes(self) -> bytes:
        if isinstance(self.source, bytes):
            return self.source
        assert isinstance(self.source, Path)
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror or error}.") from None


#: What is matched to candidates.
Query = str | Picture
#: What stands for a query: itself, or what `as_picture` makes a picture of.
Item = str | Picture | Path | bytes | Image.Image | NDArray[np.uint8]


class _Kept:
    """Pixels by picture, size and mode, until `KEPT_BYTES` are full."""

    def __init__(self) -> None:
        self.pixels: dict[tuple[str, int, str], Pixels] = {}
        self.nbytes = 0
        self.lock = threading.Lock()

    def get(self, key: tuple[str, int, str]) -> Pixels | None:
        return self.pixels.get(key)

    def add(self, key: tuple[str, int, str], pixels: Pixels) -> None:
        with self.lock:
            if key not in self.pixels and self.nbytes + pixels.nbytes <= KEPT_BYTES:
                self.pixels[key] = pixels
                self.nbytes += pixels.nbytes


_kept = _Kept()


def key_of(query: Query) -> str:
    """Return a text that is equal for equal queries."""
    return query if isinstance(query, str) else query.digest


def as_picture(given: Item) -> Picture:
    """Make a picture of a path, of an encoded file's bytes, of a PIL image or of an array of pixels.

    Raises:
        DataError: an array of another shape or type, a PIL image that cannot be decoded, or anything else.
    """
    if isinstance(given, Picture):
        return given
    if isinstance(given, str | Path):
        return Picture(str(given), Path(given))
    if isinstance(given, bytes):
        return Picture(f"{len(given):,} bytes", given)
    if isinstance(given, Image.Image):
        name = str(getattr(given, "filename", "") or "picture")
        try:
            return Picture(name, np.asarray(_plain(ImageOps.exif_transpose(given))))
        except (ValueError, OSError) as error:
            raise DataError(f"{name}: the picture cannot be decoded: {error}.") from None
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        if given.ndim == 3 and given.shape[2] == 1:
            given = given[:, :, 0]
        if (given.ndim == 2 or (given.ndim == 3 and given.shape[2] == 3)) and given.size:
            return Picture("picture", given)
    what = f"an array of {given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
    raise DataError(
        f"Expected a picture as a path, bytes, a PIL image or (height, width[, 3]) pixels in uint8, got {what}."
    )


def as_queries(items: Sequence[Item], *, pictures: bool) -> list[Query]:
    """Check texts, or make pictures of what stands for them.

    Raises:
        ValueError: something that is not a text, or an empty one.
        DataError: something that is not a picture.
    """
    if pictures:
        return [as_picture(item) for item in items]
    texts: list[Query] = []
    for item in items:
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"Expected a text to match, got {item!r}.")
        texts.append(item)
    return texts


def check_pictures(pictures: Sequence[Picture], advance: Advance | None = None) -> None:
    """Decode every picture once, so that none breaks in the middle of training.

    Args:
        pictures: what to decode.
        advance: called now and then with the share done, from 0 to 1, and a description of the work.

    Raises:
        DataError: pictures that cannot be read: how many, and the first ten by name and reason.
    """
    # All of a JPEG's data is read at an eighth of its size too.
    _each(lambda picture: picture.image(least=1).size, pictures, advance)


def digests(pictures: Sequence[Picture]) -> list[str]:
    """`Picture.digest` of each.

    Raises:
        DataError: files that cannot be read, as in `check_pictures`.
    """
    return _each(lambda picture: picture.digest, pictures)


def _each(
    work: Callable[[Picture], T],
    pictures: Sequence[Picture],
    advance: Advance | None = None,
) -> list[T]:
    """What `work` makes of each picture, or one error that names all it fails for."""

    def tried(picture: Picture) -> T | DataError:
        try:
            return work(picture)
        except DataError as error:
            return error

    made: list[T] = []
    broken: list[DataError] = []
    for done, result in enumerate(_in_threads(tried, pictures), start=1):
        if isinstance(result, DataError):
            broken.append(result)
        else:
            made.append(result)
        if advance is not None and done % 50 == 0:
            advance(done / len(pictures), f"reading {len(pictures):,} pictures")
    if broken:
        more = f"\n  … and {len(broken) - 10:,} more" if len(broken) > 10 else ""
        listed = "".join(f"\n  {reason}" for reason in broken[:10])
        raise DataError(
            f"{len(broken):,} of {len(pictures):,} pictures cannot be read. Fix or remove them:{listed}{more}"
        )
    return made


def pixel_batch(pictures: Sequence[Picture], size: int, mode: str) -> Pixels:
    """(b, channels, size, size) pixels of some pictures, decoded by several threads."""
    made = np.stack(list(_in_threads(lambda picture: picture.pixels(size, mode), pictures)))
    return np.ascontiguousarray(made.transpose(0, 3, 1, 2))


def _in_threads(work: Callable[[Picture], Any], pictures: Sequence[Picture]) -> Any:
    """Results in order. Decoders release the GIL; arrays need no decoding and so no threads."""
    if all(isinstance(picture.source, np.ndarray) for picture in pictures):
        return map(work, pictures)
    return _pool(os.getpid()).map(work, pictures)


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "pictures")


@functools.cache
def _formats() -> tuple[str, ...]:
    """`FORMATS`, less those that this Pillow was built without."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _plain_mode(image: Image.Image) -> str:
    return "L" if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") else "RGB"


def _plain(image: Image.Image) -> Image.Image:
    """In mode L or RGB, on white.

    Raises:
        ValueError: pixels that are floating-point numbers, or integers of more than 16 bits.
    """
    if image.mode.startswith("I"):  # 16 bits of grey, in 16 or 32
        values = np.asarray(image, dtype=np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values from {values.min()} to {values.max()}, expected 8 or 16 bits")
        # Cameras and scanners put 12 bits, and some programs 8, into files of 16: shifted by 8 they would be black.
        most = int(values.max())
        return Image.fromarray((values >> (0 if most < 1 << 8 else 4 if most < 1 << 12 else 8)).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("grey values are floating-point numbers, expected 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        sheet = image.convert("RGBA")
        white = Image.new("RGBA", sheet.size, "white")
        return Image.alpha_composite(white, sheet).convert(_plain_mode(image))
    return image.convert(_plain_mode(image))
