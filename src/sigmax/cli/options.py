"""Options of the commands: made from the fields of `Settings` and from `Option`s, their help filled from registries."""

from __future__ import annotations

import functools
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from sigmax.training.option import Option, either, names
from sigmax.training.settings import Settings, options

__all__ = [
    "AsJson",
    "Columns",
    "Command",
    "Data",
    "Database",
    "Delimiter",
    "Exact",
    "Fields",
    "Folder",
    "Group",
    "Model",
    "Reading",
    "TableName",
    "place_of_candidates",
    "renamed",
    "with_options",
]

# -- arguments and options that commands share ---------------------------------------------------

Data = Annotated[str, typer.Argument(metavar="DATA", help="File, folder, hf:user/name or built-in set.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Model folder, as `sigmax train` writes it.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="Model folder, as `sigmax train` writes it, or a model on the Hugging Face hub: user/name."
    ),
]
Exact = Annotated[
    bool, Option("Look at all candidates, also where DIR has an index of them.", group="answer", flags=("--exact",))
]
Database = Annotated[
    str,
    Option(
        "Match the candidates in this database, where `sigmax push` wrote them: postgresql://user@host/database.",
        group="answer",
        shown="ADDRESS",
        flags=("--candidates",),
    ),
]
TableName = Annotated[str, Option("Table in the database.", group="answer", shown="NAME", flags=("--table",))]
AsJson = Annotated[bool, Option("Print the result as JSON.", group="run", flags=("--json",))]
_COLUMNS = Option(
    "Your names of columns, such as query=question,answer=reply. Ours: {choices}.",
    group="data",
    shown="OURS=YOURS",
    choices="sigmax.data.formats.registry:known_columns",
    open=True,
)
Columns = Annotated[str, _COLUMNS]
_DELIMITER = Option("Character between the fields of a CSV file. Default: told from the file.", group="data", shown="X")
Delimiter = Annotated[str | None, _DELIMITER]
#: How DATA is read: the options that every command has that reads it, each with its default.
READING = {
    "columns": (_COLUMNS, ""),
    "delimiter": (_DELIMITER, None),
    "separator": (
        Option(
            "Separator of the texts in a cell of a list column (CSV, Excel); if it is empty, a cell is one text.",
            group="data",
            shown="TEXT",
        ),
        "|",
    ),
    "conflicts": (
        Option(
            "What becomes of pairs that are right and wrong at once: {choices}.",
            group="data",
            shown="NAME",
            choices="sigmax.data.dataset:CONFLICTS",
        ),
        "right",
    ),
}


class Reads:
    """Annotates the parameter that takes how DATA is read, see `READING`."""


Reading = Annotated[dict[str, Any], Reads()]


def renamed(columns: str) -> dict[str, str]:
    """Read `--columns`: our column name -> the user's.

    Raises:
        typer.BadParameter: not of the form ours=yours.
    """
    pairs = [item.partition("=") for item in columns.split(",") if item]
    for ours, equals, theirs in pairs:
        if not equals:
            raise typer.BadParameter(
                f"expected ours=yours, got {ours + theirs!r}; for example query=question", param_hint="--columns"
            )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def place_of_candidates(database: str, table: str, where: list[str] | None = None) -> dict[str, Any]:
    """Read where candidates are searched, as `load_for_matching` takes it.

    A value of `--where` is a number, true, false or null where it reads as one in JSON, and a text where not.

    Raises:
        typer.BadParameter: no address of a database, or a condition that is not of the form name=value.
    """
    import json

    from sigmax.candidates.postgres import is_postgres

    if not database:
        if where:
            raise typer.BadParameter("asks for metadata in a database: expected --candidates too", param_hint="--where")
        return {}
    if not is_postgres(database):
        raise typer.BadParameter("expected postgresql://user@host/database", param_hint="--candidates")
    values: dict[str, Any] = {}
    for condition in where or ():
        name, equals, value = condition.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected name=value, got {condition!r}", param_hint="--where")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return {"candidates": database, "table": table, **({"where": values} if values else {})}


# -- from a function's annotations to options ----------------------------------------------------


class Fields:
    """Annotates a parameter of type `Settings`: the names of the fields that the command offers."""

    def __init__(self, offered: str) -> None:
        self.names = offered.split()


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each `Option` and each field of its `Settings`."""
    hints = get_type_hints(function, include_extras=True)
    settings: dict[str, list[str]] = {}
    reading: list[str] = []
    parameters: list[inspect.Parameter] = []

    def add(name: str, annotation: Any, default: Any) -> None:
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )

    for name, parameter in inspect.signature(function).parameters.items():
        kind, *about = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        [note] = about or [None]
        if isinstance(note, Fields):
            settings[name] = note.names
            kinds = get_type_hints(Settings)
            for field in note.names:
                default = getattr(Settings, field)
                add(field, Annotated[kinds[field], _shown(field, options()[field], kinds[field], default)], default)
        elif isinstance(note, Reads):
            reading.append(name)
            for field, (option, default) in READING.items():
                add(field, Annotated[str | None, _shown(field, option, str, default)], default)
        elif isinstance(note, Option):
            add(name, Annotated[kind, _shown(name, note, kind, parameter.default)], parameter.default)
        else:
            add(name, hints[name], parameter.default)

    @functools.wraps(function)
    def command(**given: Any) -> None:
        for name, fields in settings.items():
            given[name] = Settings(**{field: given.pop(field) for field in fields})
        for name in reading:
            given[name] = {field: given.pop(field) for field in READING}
        function(**given)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _shown(name: str, option: Option, kind: Any, default: Any) -> Any:
    """Declare an option as Typer takes it; what {choices} stands for is filled in when help is shown."""
    says = option.says.replace("{choices}", f"{{{option.choices}}}")
    if isinstance(default, str | int | float) and default not in ("",) and kind is not bool and "Default:" not in says:
        says += f" Default: {default}."

    def check(value: Any) -> Any:
        bound = None if value is None else option.broken_bound(value)
        if bound:
            raise typer.BadParameter(f"expected a number {bound}, got {value}")
        return value

    bounded = (option.least, option.most, option.above) != (None, None, None)
    shown = option.shown or ("NAME" if option.choices else "TEXT")
    flags = option.flags or (f"--{name.replace('_', '-')}",)
    return typer.Option(
        *flags,
        help=says,
        metavar="" if kind is bool else shown,
        show_default=False,
        rich_help_panel=f"Options: {option.group}",
        callback=check if bounded else None,
    )


# -- commands whose help is filled in when it is shown -------------------------------------------

#: Headings of `sigmax --help`, in order.
HEADINGS = ("Train", "Measure", "Use", "Data")
#: {module:REGISTRY} stands for the names there, {each module:REGISTRY} for a list of them with what each is, and
#: {list module:REGISTRY} for the list without names.
_PLACE = re.compile(r"\{(?:(each|list) )?([\w.]+:\w+)\}")


class _FilledHelp:
    """What commands and their group share: help that is filled in when it is shown."""

    templates: list[tuple[Any, str]]

    def keep_templates(self, *owners: Any) -> None:
        """Remember help as it is written; registries may grow between two times that it is shown."""
        self.templates = [(owner, owner.help) for owner in owners if getattr(owner, "help", None)]

    def fill_help(self) -> None:
        """Fill in what help says of the registries, as they are now."""
        for owner, template in self.templates:
            owner.help = _PLACE.sub(_listed, template)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Fill in, then show."""
        self.fill_help()
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def get_help_option(self, ctx: Any) -> Any:
        """List --help beside the options of the run; with a default of its type, which spares Typer its validation."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        option.metavar, option.default = "", False
        if isinstance(self, TyperCommand):
            option.rich_help_panel = "Options: run"
        return option


class Command(_FilledHelp, TyperCommand):
    """A command that says options where the library's errors say parameters."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.keep_templates(self, *self.params)
        for argument in self.params:
            if isinstance(argument, TyperArgument):
                argument.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]

    def invoke(self, ctx: Any) -> Any:
        """Run; a library's error about `batch_size` is here about --batch-size."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            error.args = (self.spoken(str(error)),)
            raise

    def spoken(self, message: str) -> str:
        """Put options in place of the parameters that a message names."""
        flags = {option.name: max(option.opts, key=len) for option in self.params if isinstance(option, TyperOption)}
        return re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[0]), message)


class Group(_FilledHelp, TyperGroup):
    """All commands, under `HEADINGS` in their order."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.keep_templates(self)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order of headings."""
        return sorted(
            self.commands, key=lambda name: HEADINGS.index(getattr(self.commands[name], "rich_help_panel", ""))
        )


def _listed(place: re.Match[str]) -> str:
    form, registry = place.groups()
    if form is None:
        return either(names(registry))
    entries: Mapping[str, Any] = pkgutil.resolve_name(registry)
    lines = [f"- **{name}**: {_says(one)}" if form == "each" else f"- {_says(one)}" for name, one in entries.items()]
    return "\n".join(lines)


def _says(entry: Any) -> str:
    """What a registry's entry says of itself, for Markdown: an asterisk in a path is no emphasis."""
    text: str = entry if isinstance(entry, str) else getattr(entry, "describes", "") or entry.summary
    return re.sub(r"(?<=[/_])\*", r"\*", text.replace("{level}", "the level"))
