"""A flag for every setting, and settings from a file: JSON, or TOML where this Python can read it.

In a file, a name may be at the top, for whichever command has it, or under its section ("sample", "lora", "train",
"reward"). One file can therefore serve all commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from ..errors import D3POError
from ..settings import (
    PRESETS,
    LoraSettings,
    RewardSettings,
    SampleSettings,
    Settings,
    TrainSettings,
    from_stored,
    preset_values,
    replace,
)
from ..textfiles import read_text

if TYPE_CHECKING:
    from ..run.records import JsonObject


@dataclass(frozen=True)
class Config:
    """Settings from a file, by section, and the preset that it names."""

    values: dict[str, dict[str, object]]
    preset: str | None = None


def read_config(path: str | Path, sections: Mapping[str, type]) -> Config:
    """Read settings from a file; types and ranges are not checked yet.

    Args:
        path: a .toml file, or JSON.
        sections: dataclasses of settings, by name.

    Raises:
        D3POError: the file cannot be read, or it names something that no section has.
    """
    path = Path(path)
    known = {name: {item.name for item in dataclasses.fields(cls)} for name, cls in sections.items()}
    values: dict[str, dict[str, object]] = {name: {} for name in sections}
    preset: str | None = None
    for name, value in _load_file(path).items():
        if name == "preset":
            if value not in PRESETS:
                raise D3POError(f"{path} asks for the preset '{value}'.", f"Choose one of {', '.join(PRESETS)}.")
            preset = str(value)
        elif name in sections:
            if not isinstance(value, dict):
                raise D3POError(f"'{name}' in {path} is not a group of settings.")
            values[name].update(value)
        else:
            owners = [section for section in sections if name in known[section]]
            if not owners:
                everything = sorted(set().union(*known.values()))
                raise D3POError(f"{path} names '{name}', which is no setting.", f"Known are {', '.join(everything)}.")
            for section in owners:
                values[section].setdefault(name, value)
    return Config(values, preset)


def _load_file(path: Path) -> dict[str, object]:
    text = read_text(path)
    try:
        values = _toml(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise D3POError(f"The settings in {path} cannot be understood ({error}).", "Correct the file.") from error
    if not isinstance(values, dict):
        raise D3POError(f"{path} is not a table of settings.", 'It should look like {"steps": 12}.')
    return values


def _toml(text: str) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise D3POError("This Python cannot read TOML.", "Use JSON, or Python 3.11 or later.") from error
    return tomllib.loads(text)


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
SECTION_OF = {kind: name for name, kind in SECTIONS.items()}
WORDS: dict[type, tuple[str, str]] = {int: ("N", "a whole number"), float: ("X", "a number"), str: ("TEXT", "text")}


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises a D3POError of one sentence instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise D3POError(f"{message[:1].upper()}{message[1:].rstrip('.')}.", f"See {self.prog} --help.")


def make_parser(name: str, command: ModuleType, advanced: bool = False) -> Parser:
    """Make the parser of one subcommand.

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
    parser.register("type", None, _text)
    helps = parser.add_argument_group("help")
    helps.add_argument("-h", "--help", action="help", help="explain this command")
    helps.add_argument("--help-advanced", action="help", help="the same, with every setting")
    command.add_arguments(parser, advanced)
    return parser


def add_settings(
    parser: argparse.ArgumentParser, sections: tuple[str, ...], advanced: bool, without: tuple[str, ...] = ()
) -> None:
    """Add a flag for every field of these sections, and --preset and --config.

    Args:
        parser: of a subcommand.
        sections: names in `SECTIONS`.
        advanced: show advanced settings in the help as well.
        without: fields that get no flag, by name or by section and name ("train.batch").
    """
    for section in sections:
        group = parser.add_argument_group(TITLES[section])
        for item in dataclasses.fields(SECTIONS[section]):
            if item.name in without or f"{section}.{item.name}" in without:
                continue
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
    kind: type[Settings],
    model: Mapping[str, object] | None = None,
    earlier: JsonObject | None = None,
) -> Settings:
    """Return the settings of one kind, checked.

    From weakest to strongest: defaults, the model's, the preset's, an existing run's, the file's, flags.

    Args:
        options: parsed.
        kind: which settings.
        model: defaults that go with the model.
        earlier: settings as an existing run keeps them ("preset", and one dictionary for each section).

    Raises:
        D3POError: a name is unknown, or a value has the wrong type or is out of range.
    """
    section, config, earlier = SECTION_OF[kind], _config_of(options), earlier or {}
    named = options.preset or config.preset
    stored = {} if named else earlier.get(section, {})
    as_read = dataclasses.asdict(from_stored(kind, stored))
    kept = {name: as_read[name] for name in stored if name in as_read}
    flags = {key.partition(".")[2]: value for key, value in vars(options).items() if key.startswith(f"{section}.")}
    chosen = {**kept, **config.values[section], **flags}
    preset = preset_values(named or earlier.get("preset", "taste"), chosen.get("method", TrainSettings.method))
    return replace(kind(), {**(model or {}), **preset.get(section, {}), **chosen})


def preset_of(options: argparse.Namespace) -> str:
    """Return the name of the preset, for a new run."""
    return options.preset or _config_of(options).preset or "taste"


def _config_of(options: argparse.Namespace) -> Config:
    return read_config(options.config, SECTIONS) if options.config else Config({name: {} for name in SECTIONS})


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def number(
    kind: type, flag: str, low: float | None = None, high: float | None = None
) -> Callable[[str], int | float | str]:
    """Return a function that reads a flag's text, for argparse.

    The range is for flags that are no settings; those check their own. The function raises D3POError where the text is
    not of that kind, or out of range.
    """

    def read(text: str) -> int | float | str:
        try:
            value = kind(text)
        except ValueError as error:
            raise D3POError(f"{flag} is '{text}'.", f"It must be {WORDS[kind][1]}.") from error
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            span = f"between {low} and {high}" if high is not None else f"of at least {low}"
            raise D3POError(f"{flag} is {text}.", f"Choose a value {span}.")
        return value

    return read


def _text(value: str) -> str:
    """Return the text of a flag that takes any but an empty one: a variable of a script that was never set."""
    if not value.strip():
        raise argparse.ArgumentTypeError("the value is empty")
    return value


def run_folder(value: str) -> str:
    """Return the path of a run, with ~ as the home folder: not every shell sees to that."""
    return os.path.expanduser(_text(value))


def _add_flag(group: argparse._ArgumentGroup, section: str, item: dataclasses.Field[object], shown: bool) -> None:
    flag, kind = flag_of(item.name), item.metadata["kind"]
    dest, help = f"{section}.{item.name}", _describe(item) if shown else argparse.SUPPRESS
    if kind is bool:
        action = argparse.BooleanOptionalAction
        group.add_argument(flag, action=action, dest=dest, default=argparse.SUPPRESS, help=help)
    else:
        choices = item.metadata["choices"]
        metavar = f"{{{','.join(choices)}}}" if choices else WORDS[kind][0]
        read = number(kind, flag)
        group.add_argument(flag, type=read, metavar=metavar, dest=dest, default=argparse.SUPPRESS, help=help)


def _describe(item: dataclasses.Field[object]) -> str:
    """Return a setting's help, default and range."""
    low, high, default = item.metadata["low"], item.metadata["high"], item.default
    span = "" if low is None else f", at least {low}" if high is None else f", {low} to {high}"
    shown = ("on" if default else "off") if isinstance(default, bool) else "empty" if default in ("", None) else default
    return f"{item.metadata['help']} [{shown}{span}]".replace("%", "%%")
