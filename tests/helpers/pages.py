"""The README and the pages of docs/: their code, their commands, and how to run them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


class Block(NamedTuple):
    """A fenced block: its language, title and text."""

    language: str
    title: str
    text: str


def name(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """Every fenced block of a page, in order; one inside a list or a box is indented."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.finditer(
        r'^(?P<margin> *)```(?P<language>\w*)(?: title="(?P<title>.*?)")?.*?\n(?P<text>.*?)^(?P=margin)```$',
        text,
        re.DOTALL | re.MULTILINE,
    )
    for block in found:
        lines = [line.removeprefix(block["margin"]) for line in block["text"].splitlines(keepends=True)]
        yield Block(block["language"], block["title"] or "", "".join(lines))


def run_python(page):
    """Run every block of Python of a page, one after the other, as a reader would type them."""
    namespace = {"__name__": page.stem}
    for number, block in enumerate((one for one in blocks(page) if one.language == "python"), start=1):
        exec(compile(block.text, f"{name(page)}, block {number}", "exec"), namespace)


def commands(page):
    """Every command line of a page that starts `sigmax`, as a list of words; after `torchrun … -m` too."""
    for block in blocks(page):
        if block.language not in ("", "sh", "console"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ")
            if words.startswith("torchrun ") and " -m sigmax " in words:
                words = "sigmax " + words.partition(" -m sigmax ")[2]
            if words.startswith("sigmax "):
                yield shlex.split(words, comments=True)
