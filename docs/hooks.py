"""Pages that MkDocs makes from the code each time it builds: the help of commands, tables of metrics and formats."""

from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from sigmax.cli.main import app
from sigmax.data.formats.registry import readers
from sigmax.data.formats.rows import TABLES
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


def formats() -> str:
    """Return a table of what is read: each format in the order tried, its columns and its files."""
    rows = ["| format | what it is | columns | files |", "|---|---|---|---|"]
    for reader in readers():
        columns = ", ".join(f"`{name}`" for name in reader.columns)
        files = ", ".join(reader.endings) or ("tables" if reader.columns else "a folder")
        describes = reader.describes.replace("|", r"\|").replace("*", r"\*")
        rows.append(f"| {reader.name} | {describes} | {columns} | {files} |")
    return "\n".join(rows) + "\n"


def tables() -> str:
    """Return the endings of tables."""
    return ", ".join(f"`{ending}`" for ending in TABLES)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the command line."""
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables that are made of registries where a page asks for them."""
    for place, made in {"metrics": metrics, "formats": formats, "tables": tables}.items():
        markdown = markdown.replace(f"<!-- {place} -->", made())
    return markdown
