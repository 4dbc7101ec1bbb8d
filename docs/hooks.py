"""Pages that MkDocs makes from the code each time it builds: the command line's help, and the figures' names."""

from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from sigmax.cli.main import app
from sigmax.evaluation import CLOSER_TO_ONE, LOWER_IS_BETTER, METRICS


def command_line() -> str:
    """What `--help` of every command says."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("sigmax", [], resilient_parsing=True)
    return get_docs_for_click(obj=command, ctx=context, name="sigmax", title="Command line")


def figures() -> str:
    """Every figure that an evaluation may hold."""
    rows = ["| name | what it is | better |", "|---|---|---|"]
    for name, meaning in METRICS.items():
        better = "at 1" if name in CLOSER_TO_ONE else "lower" if name in LOWER_IS_BETTER else "higher"
        rows.append(f"| `{name}` | {meaning} | {better} |")
    return "\n".join(rows) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the command line."""
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of figures where a page asks for it."""
    return markdown.replace("<!-- figures -->", figures()) if "<!-- figures -->" in markdown else markdown
