"""Export a model, to be answered from without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sigmax.cli.app import command
from sigmax.cli.console import bar, deliver, print_json, quiet, say
from sigmax.cli.data import read
from sigmax.cli.options import AsJson, Model, Reading
from sigmax.errors import extra
from sigmax.files import check_file
from sigmax.training.option import Option

__all__ = ["export"]


@command("Use")
def export(
    folder: Model,
    reading: Reading,
    output: Annotated[
        Path, Option("File to write, ending in .onnx; FILE.npz comes beside it.", group="run", flags=("--output", "-o"))
    ],
    int8: Annotated[bool, Option("Smaller and faster, at some loss of quality; needs --data.", group="run")] = False,
    data: Annotated[
        str | None,
        Option(
            "DATA to measure P@1 and log loss on, before and after; none that was trained on.",
            group="data",
            shown="DATA",
        ),
    ] = None,
    split: Annotated[
        str, Option("Which queries of it: {choices}.", group="data", choices="sigmax.data.dataset:SPLITS", open=True)
    ] = "dev",
    worse: Annotated[
        float,
        Option(
            "Part by which P@1 may fall and log loss rise; where more would be lost, nothing is written.",
            group="run",
            shown="X",
            least=0,
        ),
    ] = 0.02,
    as_json: AsJson = False,
) -> None:
    """Write a model of texts as one ONNX file, its candidates beside it, to be answered from without PyTorch.

    The file gives vectors, logits, shares and presences, in any language that has an ONNX runtime; `sigmax serve
    FILE.onnx` and, in Python, `sigmax.runtime.load` answer from it as from DIR. Answers are compared with the model's
    before anything is written. With --int8, tables of vectors and the weights of transformers take a quarter of the
    room, and presences and rules are fitted anew on DATA, as they were in training.

    Example: sigmax export runs/faq/sigmoid -o faq.onnx --int8 --data faq.csv
    """
    if output.suffix != ".onnx":
        raise typer.BadParameter(f"expected a file ending in .onnx, got {str(output)!r}", param_hint="--output")
    if int8 and data is None:
        raise typer.BadParameter("--int8 needs --data DATA: what it costs is measured first", param_hint="--int8")
    check_file(output)
    quiet()
    with extra("onnx"):
        import onnx
        import onnxruntime
        import onnxscript

    assert onnx, onnxruntime
    assert onnxscript
    from sigmax.model import load
    from sigmax.runtime import export as run

    model = load(folder)
    dataset = None if data is None else read(data, reading)
    with bar("exporting"):
        made = run(model, output, int8=int8, data=dataset, split=split, worse=worse)

    def show() -> None:
        if as_json:
            print_json(made.as_dict())

    def tell() -> None:
        for name in made.before or ():
            assert made.before is not None
            assert made.after is not None
            say(f"{name} on {made.split} of {made.data}: {made.before[name]:.4f} before, {made.after[name]:.4f} after")
        say(f"Written: {output} and {output.with_suffix('.npz')}, {made.bytes / 1e6:,.1f} MB")

    deliver(show, tell)
