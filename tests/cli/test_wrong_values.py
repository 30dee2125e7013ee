"""Every option of every command, with wrong values: one sentence, exit status 2, nothing left behind, no model loaded.

The options come from the commands' own parsers, so a new one without a wrong value fails here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from d3po_core.cli import COMMANDS, main
from d3po_core.cli.flags import SECTIONS, make_parser, run_folder
from d3po_core.embedded import GARDEN_FOLDER
from d3po_core.errors import D3POError
from d3po_core.models import loading
from d3po_core.run import Run
from d3po_core.run.database import DATABASE

EARLIER = Path(__file__).parents[1] / "data" / "earlier_run"
RUN, NEW = "my taste", "new taste"
NEEDED = {
    "plan": {"--model": "garden"},
    "sample": {"--run": NEW, "--prompt": "a red tulip by day"},
    "annotate": {"--run": RUN, "--export": "new.json"},
    "import": {"--run": NEW, "--from": "pictures"},
    "train": {"--run": RUN},
    "reward": {"--run": RUN, "--to": "new.safetensors"},
    "draft": {"--run": NEW, "--reward": "warmth", "--prompt": "a red tulip by day"},
    "evaluate": {"--run": RUN, "--scorer": "warmth", "--prompt": "a red tulip by day", "--prompts": "two.txt"},
    "export": {"--run": RUN, "--to": "new"},
    "info": {"--run": RUN},
    "serve": {"--run": RUN},
    "invite": {"--run": RUN},
    "demo": {"--run": NEW},
}
"""A right call of each command; the value that is tried takes the place of the right one."""
EMPTY = "Argument {flag}: the value is empty."
NO_RUN = [("nowhere", "There is no folder"), ("other", "is not a run"), ("notes.txt", "There is no folder")]
NEW_RUN = [("other", "is not a run"), ("notes.txt", "notes.txt is a file"), ("notes.txt/run", "notes.txt is a file")]
REWARDS = [
    *[("beauty", "There is no reward called 'beauty'."), ("0*warmth", "not a number other than 0")],
    *[("clip:", "has no path"), ("clip:nowhere", "nowhere"), ("picks:nowhere", "nowhere")],
    *[("nowhere.py:likes", "There is no file"), ("notes.py:likes", "There is no function 'likes'")],
]
FILES = {  # of a configuration, prompts, picks: none of these is one
    "nowhere.txt": "There is no file nowhere.txt.",
    "other": "other cannot be read (Is a directory).",
    "binary.txt": "binary.txt cannot be read as text.",
}
CONFIGS = [
    *FILES.items(),
    *[("notes.txt", "cannot be understood"), ("list.json", "is not a table of settings")],
    *[("unknown.json", "names 'stepz', which is no setting"), ("range.json", "-5"), ("type.json", "must be of type")],
]
WRONG: dict[str, list[tuple[str, str]]] = {
    "annotate --scorer": REWARDS,
    "sample --run": NEW_RUN,
    "import --run": NEW_RUN,
    "draft --run": NEW_RUN,
    "demo --run": [*NEW_RUN, (RUN, "There is a run in")],
    "--run": NO_RUN,
    "plan --model": [
        *[("nowhere", "There is no model 'nowhere'."), ("other", "'other' is not a diffusers pipeline folder")],
        *[("notes.txt", "is not a .safetensors file"), ("damaged.safetensors", "damaged.safetensors")],
    ],
    "--parts": [("some", "invalid choice: 'some'")],
    "--size": [("3x", "--size is '3x'."), ("0", "--size is '0'."), ("-64", "--size is '-64'."), ("big", "'big'")],
    "--memory": [("0", "--memory is 0."), ("nan", "--memory is nan."), ("much", "--memory is 'much'.")],
    "--measure": [],
    "--model": [
        *[("nowhere", "There is no model at 'nowhere'."), ("other", "it has no model_index.json")],
        *[("notes.txt", "is not a .safetensors file"), ("damaged.safetensors", "damaged.safetensors")],
    ],
    "--base-config": [("nowhere", "nowhere"), ("other", "it has no model_index.json")],
    "--dtype": [("int8", "invalid choice: 'int8'")],
    "--device": [("cuda:99", "There is no device 'cuda:99'"), ("banana", "There is no device 'banana'")],
    "--prompt": [(" ", EMPTY)],
    "--prompts": [*FILES.items(), ("blank.txt", "There is no prompt in blank.txt.")],
    "--config": CONFIGS,
    "--preset": [("magic", "invalid choice: 'magic'")],
    "--policy": [("7", "There is no LoRA of a round '7'"), ("newest", "There is no LoRA of a round 'newest'")],
    "--scorer": REWARDS,
    "train --reward": REWARDS,
    "draft --reward": [*REWARDS, ("compressibility", "is not differentiable")],
    "--random": [],
    "--kind": [("best", "invalid choice: 'best'")],
    "--flip": [("1.5", "--flip is 1.5."), ("nan", "--flip is nan."), ("some", "--flip is 'some'.")],
    "--limit": [("0", "--limit is 0."), ("1.5", "--limit is '1.5'.")],
    "annotate --seed": [("some", "--seed is 'some'.")],
    "demo --seed": [("some", "--seed is 'some'."), ("-1", "seed is -1."), ("4294967296", "seed is 4294967296.")],
    "--import": [
        *[("nowhere.json", "cannot be read (No such file"), ("notes.txt", "is not JSON")],
        *[("list.json", "cannot be used"), ("other", "other"), ("nowhere.jsonl", "nowhere.jsonl")],
        *[("binary.txt", "binary.txt"), ("notes.jsonl", "notes.jsonl")],
    ],
    "--export": [("other", "other"), ("notes.txt/x.json", "notes.txt")],
    "--as": [("zip", "invalid choice: 'zip'")],
    "--who": [(" ", EMPTY)],
    "reward --who": [("nobody", "There are no picks of 'nobody' in this run.")],
    "--from": [
        *[("nowhere", "There is no"), ("other", "holds no picture"), ("notes.txt", "is not a .jsonl file")],
        *[("notes.jsonl", "Nothing in notes.jsonl can be used"), ("nowhere.jsonl", "There is no")],
    ],
    "--finish": [],
    "--details": [],
    "reward --to": [
        *[("new.ckpt", "Name a file that ends in .safetensors."), ("there.safetensors", "There is a file")],
        ("notes.txt/new.safetensors", "notes.txt"),
    ],
    "--features": [("beauty", "beauty"), ("clip:nowhere", "nowhere")],
    "--seeds": [("1", "--seeds is 1."), ("many", "--seeds is 'many'.")],
    "evaluate --to": [("notes.txt", "notes.txt"), ("notes.txt/new", "notes.txt")],
    "export --to": [
        *[("out/new.ckpt", "new.ckpt does not end in .safetensors."), ("notes.txt", "notes.txt")],
        *[("there.safetensors", "There is a file"), ("notes.txt/new", "notes.txt")],
    ],
    "--round": [("7", "There is no LoRA of a round '7'"), ("base", "The original model has no LoRA."), ("-1", "'-1'")],
    "--go-back": [("7", "There is no LoRA of a round '7'"), ("newest", "There is no LoRA of a round 'newest'")],
    "--restore": [("there.safetensors", "No LoRA file of this run is missing or damaged.")],
    "--go-on": [],
    "--free-space": [],
    "--ranking": [],
    "--same-person": [],
    "--listen": [("nowhere.invalid", "Port 7869 at nowhere.invalid cannot be listened on")],
    "--port": [("0", "--port is 0."), ("65536", "--port is 65536."), ("some", "--port is 'some'.")],
    "--url": [("pick.example.org", "--url is 'pick.example.org'."), ("https://a/?b", "--url is 'https://a/?b'.")],
    "--days": [("0", "--days is 0."), ("nan", "--days is nan."), ("week", "--days is 'week'.")],
    "--revoke": [("nobody", "Nobody named 'nobody' has a link that works.")],
    "--overlap": [("0", "--overlap is 0."), ("101", "--overlap is 101."), ("1.5", "--overlap is '1.5'.")],
    "--keep-rounds": [("-1", "--keep-rounds is -1."), ("all", "--keep-rounds is 'all'.")],
    "--picks": [("0", "--picks is 0."), ("many", "--picks is 'many'.")],
    "--width": [("13", "13")],
    "--height": [("13", "13")],
    "--negative": [],
}
"""Wrong values and a part of the message about each, by option, or by command and option. An option of a setting has
more: those that its field's range, choices and type exclude. Every option with a value is tried with none, too."""
NEEDS_MODEL = ("--width", "--height")
"""Only the model knows which sizes it can draw."""


def cases() -> Iterator[tuple[str, str, str | None, str]]:
    """Yield commands, their options, and for each of them wrong values with a part of the message."""
    for command in COMMANDS:
        parser = make_parser(command, import_module(f"d3po_core.cli.{command}"))
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction) or not action.option_strings:
                continue
            flag = next(each for each in action.option_strings if each.startswith("--"))
            own = WRONG.get(f"{command} {flag}", WRONG.get(flag))
            section, _, name = action.dest.partition(".")
            fields = {item.name: item for item in dataclasses.fields(SECTIONS[section])} if name else {}
            if own is None and not fields:
                yield command, flag, None, "This option has no wrong value in WRONG."
            if action.nargs == 0:
                yield command, flag, "yes", "ignored explicit argument 'yes'"
                continue
            is_number = action.type not in (None, run_folder)
            more = of_a_setting(fields[name]) if name else [("", "{flag} is ''" if is_number else EMPTY)]
            for value, message in [*(own or []), *more]:
                yield command, flag, value, message.format(flag=flag)


def of_a_setting(item: dataclasses.Field[object]) -> list[tuple[str, str]]:
    """Return values that a setting cannot have."""
    low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
    if choices:
        return [("magic", f"{item.name} is 'magic'. Choose one of {choices[0]}")]
    if item.metadata["kind"] is str:
        return []
    wrong = ["many", ""] + (["1.5"] if item.metadata["kind"] is int else ["nan", "inf", "1,5"])
    message = [(text, f"is '{text}'" if text not in ("nan", "inf") else f"{item.name} is {text}.") for text in wrong]
    ends = [low - 1] if low is not None else []
    ends += [high + 1] if high is not None else []
    return [*message, *((f"{end}", f"{item.name} is {end}.") for end in ends)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and with files of many kinds, in which the command is called. Nothing changes it."""
    tmp_path = tmp_path_factory.mktemp("wrong")
    shutil.copytree(EARLIER, tmp_path / RUN)
    Run.open(tmp_path / RUN).close()  # which brings its database up to date
    if (GARDEN_FOLDER / "unet").exists():
        with closing(sqlite3.connect(tmp_path / RUN / DATABASE)) as database, database:
            identity = loading.load_model("garden").identity
            database.execute("UPDATE meta SET value = json_set(value, '$.identity', ?) WHERE key = 'model'", [identity])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.md").write_text("mine")
    for name, text in {
        "notes.txt": "just words",
        "notes.py": "likes_not = 1",
        "notes.jsonl": "just words",
        "blank.txt": "\n \n",
        "two.txt": "a blue daisy at night\na red poppy by day",
        "list.json": "[[1, 2, 3, 4, 5, 6, 7, 8, 9]]",
        "unknown.json": '{"stepz": 1}',
        "range.json": json.dumps({section: {"batch": -5} for section in ("sample", "train", "reward")} | {"rank": -5}),
        "type.json": json.dumps({"batch": "many", "rank": "many"}),
        "damaged.safetensors": "damaged",
        "there.safetensors": "there",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 4)
    for number, side in enumerate(("winners", "losers")):
        (tmp_path / "pictures" / side).mkdir(parents=True)
        Image.new("RGB", (64, 64), (90 * number, 80, 70)).save(tmp_path / "pictures" / side / "0.png")
        (tmp_path / "pictures" / side / "0.txt").write_text("a red tulip by day")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder. SQLite's own two files beside a database come and go."""
    files = (path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in files}


CASES = list(cases())


@pytest.mark.parametrize(
    ("command", "flag", "value", "message"),
    CASES,
    ids=[f"{command} {flag}={value}" for command, flag, value, _ in CASES],
)
def test_a_wrong_value(
    command: str,
    flag: str,
    value: str | None,
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert value is not None, message
    if flag not in NEEDS_MODEL:
        monkeypatch.setattr(loading.DiffusersModel, "__init__", lambda *_: pytest.fail("The model is loaded first."))
    monkeypatch.chdir(place)
    before = content(place)
    right = [part for name, given in NEEDED[command].items() if name != flag for part in (name, given) if part]
    assert main([command, *right, f"{flag}={value}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("d3po: ") and error.count("\n") == 1
    assert content(place) == before


def test_an_argument_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--run", str(tmp_path / "run"), "--negative", "caf\udce9"]) == 2
    assert capsys.readouterr().err == "d3po: 'caf?' is not valid UTF-8. Set the terminal to UTF-8.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_import_of_nothing_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "from" / "winners").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "from" / "winners" / "0.png")
    (tmp_path / "from" / "winners" / "0.txt").write_text("a red tulip by day " * 40)
    assert main(["import", "--run", str(tmp_path / "run"), "--from", str(tmp_path / "from")]) == 2
    assert "The model can take none of these pictures." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


@pytest.mark.parametrize("kind", ["folder", "link", "none"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, D3POError("The disk is full.")])
def test_a_failed_import_leaves_a_folder_as_a_person_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: BaseException | type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(import_module("d3po_core.cli.import"), "_bring", fail)
    (tmp_path / "from" / "winners").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "from" / "winners" / "0.png")
    (tmp_path / "from" / "winners" / "0.txt").write_text("a red tulip by day")
    folder, target = tmp_path / "run", tmp_path / "target"
    if kind == "folder":
        folder.mkdir()
    if kind == "link":
        target.mkdir()
        folder.symlink_to(target)
    assert main(["import", "--run", str(folder), "--from", str(tmp_path / "from")]) in (2, 130)
    assert folder.exists() == (kind != "none") and folder.is_symlink() == (kind == "link")
    assert kind == "none" or list(folder.iterdir()) == []
