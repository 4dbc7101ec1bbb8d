"""The application that every command registers with."""

from __future__ import annotations

from collections.abc import Callable

import typer

from sigmax.cli.options import Command, Group, with_options

__all__ = ["app", "command"]

app = typer.Typer(
    name="sigmax",
    cls=Group,
    help="Train models that match things to their right answers (several, one or none), and learn whether softmax or "
    "sigmoid suits your data.\n\nDATA is a file or folder (see `sigmax check --help`), a data set on the Hugging Face "
    "hub (hf:user/name), or a built-in set: {sigmax.data.sources:BUILTIN}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def command(group: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command, under a heading of `sigmax --help`."""
    return lambda function: app.command(cls=Command, rich_help_panel=group)(with_options(function))
