"""Help: every argument, every name that is registered, now and later."""

import pkgutil

import pytest

from helpers.commands import COMMANDS
from sigmax.training.settings import Settings


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_argument(name, sigmax, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 160)
    done = sigmax(name, "--help")
    assert done.code == 0
    assert done.err == ""
    for parameter in COMMANDS[name].params:
        for word in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
            assert word in done.out
    assert (COMMANDS[name].help or "").split(".")[0].split("\n")[0][:40] in " ".join(done.out.split())


def test_help(sigmax):
    done = sigmax("--help")
    assert done.code == 0
    assert {"check", "compare", "evaluate", "match", "train"} <= COMMANDS.keys()
    for name in COMMANDS:
        assert f" {name} " in done.out
    assert "{formats}" not in sigmax("check", "--help").out
    assert "a BEIR folder" in " ".join(sigmax("check", "--help").out.split())


def test_no_command_is_help(sigmax):
    done = sigmax()
    assert done.code == 2
    assert "Usage" in done.out + done.err


def shown(done):
    """Help without frames and line breaks, which fall anywhere in a name."""
    return "".join(done.out.replace("│", " ").split())


#: Where help names a registry: command -> module:REGISTRY.
NAMED = {
    "train": [
        "sigmax.families:OBJECTIVES",
        "sigmax.encoders:ENCODERS",
        "sigmax.encoders:HEADS",
        "sigmax.encoders:AUGMENTATIONS",
    ],
    "compare": ["sigmax.comparison:CONTENDERS", "sigmax.encoders:ENCODERS"],
    "match": ["sigmax.calibration:RULES"],
    "calibrate": ["sigmax.calibration:CALIBRATIONS"],
    "encode": ["sigmax.model.embeddings:SIDES"],
    "": ["sigmax.data:BUILTIN"],
}


@pytest.mark.parametrize(("command", "registry"), [(one, place) for one, places in NAMED.items() for place in places])
def test_help_names_what_is_registered(command, registry, sigmax, monkeypatch):
    """All there is, and what is added from outside while the process runs."""
    entries = pkgutil.resolve_name(registry)
    words = [command, "--help"] if command else ["--help"]
    text = shown(sigmax(*words))
    assert all(name in text for name in entries)
    assert "zebra" not in text
    monkeypatch.setitem(entries, "zebra", next(iter(entries.values())))
    assert "zebra" in shown(sigmax(*words))
    monkeypatch.delitem(entries, "zebra")
    assert shown(sigmax(*words)) == text


def test_help_names_formats_and_their_columns(sigmax):
    from sigmax.data.formats.registry import READERS, known_columns

    text = shown(sigmax("check", "--help"))
    for reader in READERS.values():
        assert "".join(reader.describes.split()) in text
    text = shown(sigmax("train", "--help"))
    assert all(name in text for name in known_columns())


def test_every_option_says_what_it_is_and_its_default():
    for name, command in COMMANDS.items():
        command.fill_help()
        for option in command.params:
            assert option.help[0].isupper(), (name, option.name)
            assert option.help.endswith((".", "'{\"a, b\": 1.0}'.")), (name, option.name)
            assert "{" not in option.help.replace('{"a', ""), (name, option.name)
            said = option.help.partition("Default: ")[2]
            if option.param_type_name == "option" and type(option.default) in (int, float, str):
                assert said == f"{option.default}." or option.default == ""


def test_settings_are_the_options_of_training():
    """Each field of Settings that `train` offers has the field's default and goes where it is said."""
    from sigmax.training.settings import options

    offered = {option.name: option for option in COMMANDS["train"].params}
    assert set(options()) - set(offered) == {"steps", "draw"}  # a comparison's
    for field, option in options().items():
        if field in offered:
            assert offered[field].default == getattr(Settings, field)
            assert offered[field].rich_help_panel == f"Options: {option.group}"
