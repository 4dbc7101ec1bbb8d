"""Pages that MkDocs makes from the code each time it builds: the command line's help, and the table of metrics."""

from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from sigmax.cli.main import app
from sigmax.metrics.registry import METRICS


def command_line() -> str:
    """Return what `--help` of every command says."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("sigmax", [], resilient_parsing=True)
    for one in (command, *command.commands.values()):
        one.fill_help()
    return get_docs_for_click(obj=command, ctx=context, name="sigmax", title="Command line")


def metrics() -> str:
    """Return a table of every metric that an evaluation may hold."""
    rows = ["| name | what it is | better |", "|---|---|---|"]
    rows += [f"| `{metric.name}` | {metric.meaning} | {metric.better} |" for metric in METRICS.values()]
    return "\n".join(rows) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the command line."""
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of metrics where a page asks for it."""
    return markdown.replace("<!-- metrics -->", metrics())
