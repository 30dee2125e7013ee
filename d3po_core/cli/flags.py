"""Command-line flags, made from the settings' dataclasses.

A value comes from the first of these that has one: its flag, the file given as --config, the preset, the run's own
earlier settings (unless a preset is named), the model's defaults, the dataclass.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from ..errors import D3POError
from ..settings import PRESETS, LoraSettings, RewardSettings, SampleSettings, TrainSettings, preset_values, replace
from .config import read_config

SECTIONS: dict[str, type] = {
    "sample": SampleSettings,
    "lora": LoraSettings,
    "train": TrainSettings,
    "reward": RewardSettings,
}
TITLES = {
    "sample": "how candidates are drawn",
    "lora": "what is trained",
    "train": "how picks become a LoRA",
    "reward": "how a reward becomes a LoRA",
}
WORDS: dict[type, tuple[str, str]] = {int: ("N", "a whole number"), float: ("X", "a number"), str: ("TEXT", "text")}


class Parser(argparse.ArgumentParser):
    """Tells mistakes in one sentence instead of the usage."""

    def error(self, message: str) -> NoReturn:
        raise D3POError(f"{message[:1].upper()}{message[1:].rstrip('.')}.", f"See {self.prog} --help.")


def make_parser(name: str, command: ModuleType, advanced: bool = False) -> Parser:
    """The parser of one subcommand.

    Args:
        name: of the subcommand.
        command: its module.
        advanced: show the advanced settings in the help as well.
    """
    parser = Parser(
        prog=f"d3po {name}",
        description=command.__doc__,
        epilog=f"example:\n{command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    helps = parser.add_argument_group("help")
    helps.add_argument("-h", "--help", action="help", help="explain this command")
    helps.add_argument("--help-advanced", action="help", help="the same, with every setting")
    command.add_arguments(parser, advanced)
    return parser


def add_settings(
    parser: argparse.ArgumentParser, sections: tuple[str, ...], advanced: bool, without: tuple[str, ...] = ()
) -> None:
    """A flag for every field of these sections, and --preset and --config; advanced ones hide unless asked for."""
    for section in sections:
        group = parser.add_argument_group(TITLES[section])
        for item in (item for item in dataclasses.fields(SECTIONS[section]) if item.name not in without):
            _add_flag(group, section, item, advanced or not item.metadata["advanced"])
    group = parser.add_argument_group("many settings at once")
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="taste (the default) learns most per pick; published is D3PO as in the paper",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help='JSON or TOML with the names above, such as {"steps": 12, "train": {"batch": 4}}',
    )


def settings_of(
    options: argparse.Namespace,
    section: str,
    model: dict[str, Any] | None = None,
    earlier: dict[str, Any] | None = None,
) -> Any:
    """The settings of one section, checked.

    Args:
        options: parsed.
        section: "sample", "lora", "train" or "reward".
        model: defaults that go with the model.
        earlier: settings as an existing run keeps them ("preset", and one dictionary for each section).

    Raises:
        D3POError: a name is unknown, or a value has the wrong type or is out of range.
    """
    config = read_config(options.config, SECTIONS) if options.config else {}
    named = options.preset or config.get("preset")
    earlier = earlier or {}
    known = {item.name for item in dataclasses.fields(SECTIONS[section])}
    kept = {} if named else {name: value for name, value in earlier.get(section, {}).items() if name in known}
    flags = {key.partition(".")[2]: value for key, value in vars(options).items() if key.startswith(f"{section}.")}
    given = {**kept, **config.get(section, {}), **flags}
    preset = preset_values(named or earlier.get("preset", "taste"), given.get("method", TrainSettings.method))
    return replace(SECTIONS[section](), {**(model or {}), **preset.get(section, {}), **given})


def preset_of(options: argparse.Namespace) -> str:
    """The name of the preset, for a new run."""
    config = read_config(options.config, SECTIONS) if options.config else {}
    return options.preset or config.get("preset", "taste")


def flag_of(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def number(kind: type, flag: str, low: float | None = None, high: float | None = None) -> Callable[[str], Any]:
    """What reads a flag's text, for argparse. The range is for flags that are no settings; those check their own.

    Raises (when called):
        D3POError: it is not of that kind, or out of range.
    """

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise D3POError(f"{flag} is '{text}'.", f"It must be {WORDS[kind][1]}.") from error
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            span = f"between {low} and {high}" if high is not None else f"of at least {low}"
            raise D3POError(f"{flag} is {text}.", f"Choose a value {span}.")
        return value

    return read


def _add_flag(group: argparse._ArgumentGroup, section: str, item: dataclasses.Field[Any], shown: bool) -> None:
    flag, kind = flag_of(item.name), type(item.default)
    options: dict[str, Any] = {"dest": f"{section}.{item.name}", "default": argparse.SUPPRESS}
    options["help"] = _describe(item) if shown else argparse.SUPPRESS
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
    else:
        choices = item.metadata["choices"]
        metavar = f"{{{','.join(choices)}}}" if choices else WORDS[kind][0]
        group.add_argument(flag, type=number(kind, flag), metavar=metavar, **options)


def _describe(item: dataclasses.Field[Any]) -> str:
    """Help, default and range."""
    low, high, default = item.metadata["low"], item.metadata["high"], item.default
    span = "" if low is None else f", at least {low}" if high is None else f", {low} to {high}"
    shown = ("on" if default else "off") if isinstance(default, bool) else "empty" if default == "" else default
    return f"{item.metadata['help']} [{shown}{span}]".replace("%", "%%")
