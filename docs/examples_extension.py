"""What our docstrings call "Example:" is, to the reader of docstrings, a section "Examples:" of sessions."""

import re
from typing import Any

import griffe


class ExamplesExtension(griffe.Extension):
    """Give the section the name under which sessions are recognised."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename it in one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
