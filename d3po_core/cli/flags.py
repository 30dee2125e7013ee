"""Settings from a file: JSON, or TOML where this Python can read it.

A name may stand alone, for whichever command has it, or under the section ("sample", "lora", "train") that it belongs
to. One file can therefore serve all commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ..errors import D3POError
from ..settings import (
    PRESETS,
    LoraSettings,
    RewardSettings,
    SampleSettings,
    TrainSettings,
    from_stored,
    preset_values,
    replace,
)


def read_config(path: str | Path, sections: dict[str, type]) -> dict[str, Any]:
    """The file's values by section, and its "preset" if it has one; types and ranges are not checked yet.

    Raises:
        D3POError: the file cannot be read, or it names something that no section has.
    """
    path = Path(path)
    known = {name: {item.name for item in dataclasses.fields(cls)} for name, cls in sections.items()}
    found: dict[str, Any] = {name: {} for name in sections}
    for name, value in _load_file(path).items():
        if name == "preset":
            if value not in PRESETS:
                raise D3POError(f"{path} asks for the preset '{value}'.", f"Choose one of {', '.join(PRESETS)}.")
            found["preset"] = value
        elif name in sections:
            if not isinstance(value, dict):
                raise D3POError(f"'{name}' in {path} is not a group of settings.")
            found[name].update(value)
        else:
            owners = [section for section in sections if name in known[section]]
            if not owners:
                everything = sorted(set().union(*known.values()))
                raise D3POError(f"{path} names '{name}', which is no setting.", f"Known are {', '.join(everything)}.")
            for section in owners:
                found[section].setdefault(name, value)
    return found


def _load_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise D3POError(f"The settings in {path} cannot be read ({reason}).", "Check the path.") from error
    try:
        values = _toml(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise D3POError(f"The settings in {path} cannot be understood ({error}).", "Correct the file.") from error
    if not isinstance(values, dict):
        raise D3POError(f"{path} is not a table of settings.", 'It should look like {"steps": 12}.')
    return values


def _toml(text: str) -> dict[str, Any]:
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
    stored = {} if named else earlier.get(section, {})
    as_read = dataclasses.asdict(from_stored(SECTIONS[section], stored))
    kept = {name: as_read[name] for name in stored if name in as_read}
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
    flag, kind = flag_of(item.name), item.metadata["kind"]
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
    shown = ("on" if default else "off") if isinstance(default, bool) else "empty" if default in ("", None) else default
    return f"{item.metadata['help']} [{shown}{span}]".replace("%", "%%")
