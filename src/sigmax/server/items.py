"""What a request asks about: texts, or pictures in base64, of bounded size."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from PIL import Image
from pydantic import PlainValidator, WithJsonSchema

from sigmax.data.pictures import Picture, Query

__all__ = ["MAX_ITEMS", "MAX_PICTURE_BYTES", "MAX_PICTURE_PIXELS", "MAX_TEXT", "Items", "queries_of"]

MAX_ITEMS = 64
MAX_TEXT = 10_000  #: characters
MAX_PICTURE_BYTES = 10_000_000
MAX_PICTURE_PIXELS = 40_000_000
#: Formats whose decoders are meant for what strangers send; Pillow knows more, some of which run other programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

Item = str | Mapping[str, str]


def _items(given: Any) -> tuple[Item, ...]:
    items = given if isinstance(given, list) else [given]
    if not 1 <= len(items) <= MAX_ITEMS:
        raise ValueError(f"Expected 1 to {MAX_ITEMS} queries, got {len(items)}.")
    for item in items:
        if isinstance(item, dict):
            if item.keys() != {"picture"} or not isinstance(item["picture"], str):
                raise ValueError('Expected {"picture": "its file in base64"}, got other fields.')
        elif not isinstance(item, str):
            raise ValueError(f'Expected a text or {{"picture": "…"}}, got {_kind(item)}.')
        elif len(item) > MAX_TEXT:
            raise ValueError(f"Expected a text of at most {MAX_TEXT:,} characters, got {len(item):,}.")
        elif not item.strip():
            raise ValueError(f"Expected a text to match, got {item!r}.")
        elif any("\ud800" <= letter <= "\udfff" for letter in item):
            raise ValueError("Expected a text in Unicode, got a surrogate without its other half.")
    return tuple(items)


_ITEM_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": "[a-zA-Z0-9]"},
        {
            "type": "object",
            "properties": {
                "picture": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": f"A file in one of the formats {', '.join(FORMATS)}: at most "
                    f"{MAX_PICTURE_BYTES:,} bytes and {MAX_PICTURE_PIXELS:,} pixels. For models that take pictures.",
                }
            },
            "required": ["picture"],
            "additionalProperties": False,
        },
    ]
}
#: One item or a list of them.
Items = Annotated[
    tuple[Item, ...],
    PlainValidator(_items),
    WithJsonSchema(
        {
            "anyOf": [
                *_ITEM_SCHEMA["anyOf"],
                {"type": "array", "items": _ITEM_SCHEMA, "minItems": 1, "maxItems": MAX_ITEMS},
            ]
        }
    ),
]


def queries_of(items: Sequence[Item], *, pictures: bool) -> list[Query]:
    """Items of a request as queries of a model that takes pictures, or texts.

    Raises:
        ValueError: a text where pictures are expected or the other way round; a picture that is too large, or none.
    """
    queries: list[Query] = []
    for number, item in enumerate(items, start=1):
        if isinstance(item, str) == pictures:
            want, got = ('{"picture": "…"}', "a text") if pictures else ("a text", "a picture")
            raise ValueError(
                f"Query {number}: the model takes {'pictures' if pictures else 'texts'}: expected {want}, got {got}."
            )
        queries.append(item if isinstance(item, str) else _picture(item["picture"], f"picture {number}"))
    return queries


def _picture(encoded: str, name: str) -> Query:
    if len(encoded) > 4 * (MAX_PICTURE_BYTES // 3 + 1):
        raise ValueError(f"{name}: expected at most {MAX_PICTURE_BYTES:,} bytes, got more. Shrink it.")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name}: expected base64, got something else.") from None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = MAX_PICTURE_PIXELS + 1
    except Exception:  # decoders raise whatever a broken file makes them stumble over
        raise ValueError(f"{name}: expected a picture as {', '.join(FORMATS)}, got something else.") from None
    if pixels > MAX_PICTURE_PIXELS:
        raise ValueError(f"{name}: expected at most {MAX_PICTURE_PIXELS:,} pixels, got more. Shrink it.")
    return Picture(name, data)


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)
