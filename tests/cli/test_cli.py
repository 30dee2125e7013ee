"""The command line: every setting has its flag, layers win in the right order, mistakes get one sentence."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3po_core.cli import COMMANDS, common, demo, main
from d3po_core.cli.common import ProgressBar, quoted, read_prompts
from d3po_core.cli.flags import SECTIONS, flag_of, make_parser, read_config, settings_of
from d3po_core.errors import D3POError, check_stop
from d3po_core.picks import Pick
from d3po_core.run import Run
from d3po_core.settings import SampleSettings, TrainSettings
from tests.run_helpers import make_run
from tests.test_settings import some_settings

ROOT = Path(__file__).resolve().parents[2]
OWNER = {"sample": "sample", "lora": "train", "train": "train", "reward": "draft"}
FIELDS = [(section, item) for section, cls in SECTIONS.items() for item in dataclasses.fields(cls)]
IDS = [f"{section}.{item.name}" for section, item in FIELDS]
fast = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parser_of(name: str, advanced: bool = False) -> argparse.ArgumentParser:
    return make_parser(name, import_module(f"d3po_core.cli.{name}"), advanced)


def parse(section: str, *arguments: str) -> argparse.Namespace:
    needed = ["--reward", "warmth"] if section == "reward" else []
    return parser_of(OWNER[section]).parse_args(["--run", "x", *needed, *arguments])


def as_flags(values: dict[str, Any]) -> list[str]:
    """Written as a person would type them; `=` because a text may begin with a dash."""
    flags = []
    for name, value in values.items():
        if value is None:  # as it is without the flag
            continue
        if isinstance(value, bool):
            flags.append(flag_of(name) if value else "--no-" + flag_of(name)[2:])
        else:
            flags.append(f"{flag_of(name)}={value}")
    return flags


@pytest.mark.parametrize(("section", "item"), FIELDS, ids=IDS)
def test_every_setting_has_a_flag_that_sets_it(section, item):
    choices, kind, high = item.metadata["choices"], item.metadata["kind"], item.metadata["high"]
    if choices:
        value = choices[-1]
    elif kind is bool:
        value = not item.default
    elif kind is str:
        value = "some text"
    else:
        value = kind(high or (item.default or 0) + 1)
    options = parse(section, *as_flags({item.name: value}))
    assert getattr(settings_of(options, SECTIONS[section]), item.name) == value


@pytest.mark.parametrize(("section", "item"), FIELDS, ids=IDS)
def test_help_shows_plain_settings_and_advanced_ones_on_demand(section, item):
    plain, full = (parser_of(OWNER[section], advanced).format_help() for advanced in (False, True))
    flag = f"  {flag_of(item.name)}"
    assert (flag + " " in plain or flag + "," in plain) is not item.metadata["advanced"]
    assert flag + " " in full or flag + "," in full


@fast
@given(st.data(), st.sampled_from(list(SECTIONS)))
def test_flags_round_trip(data, section):
    values = data.draw(some_settings(SECTIONS[section]))
    made = settings_of(parse(section, *as_flags(values)), SECTIONS[section])
    assert made == dataclasses.replace(SECTIONS[section](), **values)


@fast
@given(data=st.data(), section=st.sampled_from(list(SECTIONS)), nested=st.booleans())
def test_config_round_trips_and_flags_win_over_it(tmp_path, data, section, nested):
    from_file, from_flags = (data.draw(some_settings(SECTIONS[section])) for _ in range(2))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({section: from_file} if nested else from_file))
    made = settings_of(parse(section, "--config", str(path), *as_flags(from_flags)), SECTIONS[section])
    given = {name: value for name, value in from_flags.items() if value is not None}
    assert made == dataclasses.replace(SECTIONS[section](), **{**from_file, **given})


def test_layers_win_in_their_order(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"steps": 11, "eta": 0.5}')
    earlier = {"preset": "published", "sample": {"eta": 0.9, "batch": 3, "no_longer_known": 1}}
    model = {"guidance_scale": 2.5, "steps": 9}

    def made(*arguments: str) -> Any:
        return settings_of(parse("sample", *arguments), SampleSettings, model, earlier)

    plain = made()
    assert (plain.steps, plain.guidance_scale, plain.eta, plain.batch, plain.window) == (9, 2.5, 0.9, 3, "all")
    configured = made("--config", str(config))
    assert (configured.steps, configured.eta, configured.batch) == (11, 0.5, 3)
    named = made("--preset", "taste")
    assert (named.steps, named.eta, named.batch, named.window) == (9, 1.0, 8, "early")
    assert made("--config", str(config), "--steps", "12").steps == 12


def test_a_preset_may_stand_in_the_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"preset": "published", "train": {"epochs": 7}}')
    made = settings_of(parse("train", "--config", str(path)), TrainSettings)
    assert (made.clip, made.level, made.epochs) == (0.1, "step", 7)
    assert settings_of(parse("train", "--config", str(path), "--preset", "taste"), TrainSettings).clip is None
    other = settings_of(parse("train", "--preset", "published", "--method", "diffusion-nft"), TrainSettings)
    assert (other.beta, other.clip, other.guided_loss) == (None, None, True)  # the first two are D3PO's only


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_of_windows_editors_are_read(tmp_path, encoding):
    config, prompts = tmp_path / "config.json", tmp_path / "prompts.txt"
    config.write_bytes('{"steps": 11, "negative": "flou"}'.encode(encoding))
    prompts.write_bytes("a café by day\r\n\r\na red fox\r\n".encode(encoding))
    options = parse("sample", "--config", str(config), "--prompts", str(prompts))
    assert settings_of(options, SampleSettings).steps == 11
    assert read_prompts(options) == ["a café by day", "a red fox"]


def test_picks_leave_in_every_form_and_come_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "run", groups=3, candidates=3)
    shutil.copytree(run.folder, tmp_path / "copy")
    first, second, third = (group.id for group in run.groups.select())
    for who, best in (("Anna", 0), ("Ben", 1)):
        run.picks.add(first, Pick("favourite", (best,)), who=who)
        run.picks.add(second, Pick("favourite", (2,)), who=who)
    run.picks.add(third, Pick("tie"), who="Ben")
    kinds = {"dataset": ("data", "data/judgements.jsonl", 5), "label-studio": ("tasks", "tasks/tasks-001.json", 4)}
    for form, (path, back, picks) in {**kinds, "jsonl": ("picks.jsonl", "picks.jsonl", 5)}.items():
        assert main(["annotate", "--run", "run", "--export", path, "--as", form]) == 0
        assert ("cannot say: 1 tie" in capsys.readouterr().out) == (form == "label-studio")
        again = main(["annotate", "--run", "run", "--export", path, "--as", form])
        assert (again, "is there already" in capsys.readouterr().err) == ((2, True) if form in kinds else (0, False))
        shutil.copytree("copy", f"copy of {form}")
        assert main(["annotate", "--run", f"copy of {form}", "--import", back]) == 0
        assert f"Imported {picks} picks." in capsys.readouterr().out
        standing = Run.open(f"copy of {form}").picks.standing()
        assert [(each.who, each.pick) for each in standing if each.pick.kind != "tie"] == [
            (each.who, each.pick) for each in run.picks.standing() if each.pick.kind != "tie"
        ]
    assert main(["annotate", "--run", "run", "--export", "x", "--as", "dataset", "--who", "Ben"]) == 2
    assert "The form dataset holds everybody's picks." in capsys.readouterr().err
    assert main(["annotate", "--run", "run", "--random", "--as", "dataset"]) == 2
    assert "--as is for --export" in capsys.readouterr().err
    assert main(["info", "--run", "run"]) == 0
    told = capsys.readouterr().out
    assert "two people chose the same in 50% of 2 groups that several judged (chance 33%)" in told
    assert "  Anna:   as the others in 50% of 2 groups (chance 33%)" in told


def test_people_who_never_picked_are_named_before_anything_is_loaded(tmp_path, capsys):
    run = make_run(tmp_path / "run", groups=1)
    run.picks.add(run.groups.select()[0].id, Pick("favourite", (0,)), who="Anna")
    assert main(["train", "--run", str(run.folder), "--people", "Ana"]) == 2  # there is no model at "somewhere/model"
    said = capsys.readouterr().err
    assert "There are no picks of Ana in this run." in said and "There are picks of Anna: name some of these" in said


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell takes the command apart")
@pytest.mark.parametrize("name", ["my taste", "it's", "$HOME", 'a "b"', "plain"])
def test_what_is_to_be_copied_keeps_its_path(tmp_path, monkeypatch, capsys, name):
    """Every command that a hint names, as a shell takes it apart."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "tests" / "data" / "earlier_run", name)
    assert main(["annotate", "--run", name, "--random", "--limit", "1"]) == 0
    hint = capsys.readouterr().out.partition("Next: ")[2]
    assert shlex.split(hint) == ["d3po", "train", "--run", name]
    stopped = demo.STOPPED.format(folder=name, quoted=quoted(name)).partition("; ")[2]
    assert shlex.split(stopped)[:4] == ["d3po", "info", "--run", name]


@pytest.mark.parametrize(
    "path, command",
    [
        (r"C:\R&D\run", r'"C:\R&D\run"'),
        ("plain", '"plain"'),
        ("my (new) taste\\", r'"my (new) taste\\"'),
        ("a^b;c,d=e", '"a^b;c,d=e"'),
    ],
)
def test_paths_are_quoted_for_windows_whatever_is_in_them(monkeypatch, path, command):
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        told = quoted(path)
    assert told == command


def test_a_run_in_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copytree(ROOT / "tests" / "data" / "earlier_run", tmp_path / "taste")
    assert main(["annotate", "--run", "~/taste", "--random", "--limit", "1"]) == 0
    assert f"--run {quoted(tmp_path / 'taste')}" in capsys.readouterr().out


def test_hints_quote_every_path():
    """No command in a message has a path as it is: all that stand behind a flag are written by `quoted`."""
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "d3po_core" / "cli").glob("*.py"))
    hints = re.findall(r"d3po \w+ [^\n]*?--(?:run|reward|to) (\{[^}]*\}?)", sources)
    assert len(hints) >= 6
    assert all(hint.startswith(("{common.quoted(", "{quoted(", "{folder}", "{quoted}")) for hint in hints), hints


def test_export_to_a_folder_or_a_file(tmp_path, capsys):
    run = shutil.copytree(ROOT / "tests" / "data" / "earlier_run", tmp_path / "run")
    (tmp_path / "my.loras").mkdir()
    for to, made in {
        "a.safetensors": "a.safetensors",
        "B.SAFETENSORS": "B.SAFETENSORS",
        "my.loras": "my.loras/Earlier-round1-70.safetensors",
        "v1.5": "v1.5/Earlier-round1-70.safetensors",
        "new.loras/": "new.loras/Earlier-round1-70.safetensors",
    }.items():
        assert main(["export", "--run", str(run), "--to", f"{tmp_path}/{to}"]) == 0, capsys.readouterr().err
        assert (tmp_path / made).is_file()
    assert main(["export", "--run", str(run), "--to", str(tmp_path / "x.ckpt")]) == 2
    assert not (tmp_path / "x.ckpt").exists()


def test_toml_reads_the_same(tmp_path):
    pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    path = tmp_path / "config.toml"
    path.write_text('steps = 11\n[train]\nepochs = 7\nlevel = "step"\n')
    assert read_config(path, SECTIONS).values == {
        "sample": {"steps": 11},
        "lora": {},
        "train": {"epochs": 7, "level": "step"},
        "reward": {},
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be understood"),
        ("[1, 2]", "not a table"),
        ('{"stepz": 1}', "names 'stepz'.*Known are"),
        ('{"sample": 3}', "'sample' in .* is not a group"),
        ('{"preset": "magic"}', "preset 'magic'.*taste"),
        ('{"sample": {"epochs": 3}}', "no setting called 'epochs'"),
        ('{"steps": "many"}', "steps is 'many'.*int"),
        ('{"steps": 0}', "steps is 0.*between 1 and"),
    ],
)
def test_a_wrong_config_gets_one_sentence(tmp_path, text, told):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(D3POError, match=told):
        settings_of(parse("sample", "--config", str(path)), SampleSettings)


WRONG = [
    (["paint"], "There is no command 'paint'. Use one of plan, sample"),
    (["sample"], "The following arguments are required: --run. See d3po sample --help."),
    (["sample", "--run", "x", "--step", "3"], "Unrecognized arguments: --step 3"),
    (["sample", "--run", "x", "--steps", "many"], "--steps is 'many'. It must be a whole number."),
    (["sample", "--run", "x", "--eta", "1,5"], "--eta is '1,5'. It must be a number."),
    (["sample", "--run", "x", "--candidates", "9"], "candidates is 9. Choose a value between 2 and 8."),
    (["sample", "--run", "x", "--window", "late"], "window is 'late'. Choose one of early, first, all."),
    (["sample", "--run", "x", "--eta", "nan"], "eta is nan."),
    (["sample", "--run", "x", "--preset", "magic"], "Argument --preset: invalid choice: 'magic'"),
    (["sample", "--run", "x", "--config", "nowhere.json"], "There is no file nowhere.json."),
    (["sample", "--run", "x", "--prompts", "nowhere.txt"], "There is no file nowhere.txt."),
    (["sample", "--run", "x", "--model", "nowhere"], "There is no model at 'nowhere'."),
    (["sample", "--run", "x", "--model", "nowhere", "--prompt", "a"], "There is no model at 'nowhere'."),
    (["annotate", "--run", "x"], "Nobody was named to pick."),
    (["annotate", "--run", "x", "--scorer", "beauty"], "There is no reward called 'beauty'."),
    (["annotate", "--run", "x", "--random", "--flip", "1.5"], "--flip is 1.5. Choose a value between 0 and 1."),
    (["annotate", "--run", "x", "--random", "--limit", "0"], "--limit is 0."),
    (["annotate", "--run", "x", "--random"], "There is no folder"),
    (["annotate", "--run", "x", "--random", "--as", "paper"], "Argument --as: invalid choice: 'paper'"),
    (["train", "--run", "x"], "There is no folder"),
    (["evaluate", "--run", "x", "--scorer", "beauty"], "There is no reward called 'beauty'."),
    (["evaluate", "--run", "x", "--scorer", "warmth"], "There is no folder"),
    (["export", "--run", "x", "--to", "y"], "There is no folder"),
    (["info", "--run", "."], "is not a run"),
    (["demo", "--scorer", "beauty"], "There is no reward called 'beauty'."),
    (["demo", "--picks", "0"], "--picks is 0. Choose a value of at least 1."),
    (["evaluate", "--run", "x", "--scorer", "warmth", "--seeds", "1"], "--seeds is 1."),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_mistakes_get_one_sentence_and_leave_nothing_behind(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--model" in arguments and "--prompt" not in arguments:
        arguments = [*arguments, "--prompt", "a"]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.startswith("d3po: ") and said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def failing(error: BaseException) -> ModuleType:
    """A subcommand that ends in an error."""
    command: Any = ModuleType("failing")
    command.EXAMPLE, command.OUT_OF_MEMORY = "", "Lower --batch."
    command.add_arguments = lambda parser, advanced: None

    def run(options: argparse.Namespace) -> int:
        raise error

    command.run = run
    return command


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own, on every device."""


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 2, "Lower --batch"),
        (MemoryError(), 2, "Lower --batch"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"),
            2,
            "Lower --batch",
        ),
        (KeyboardInterrupt(), 130, "What was done before is kept"),
        (OSError(28, "No space left on device", "/tmp/x"), 2, "/tmp/x: No space left on device"),
        (D3POError("It broke.", "Mend it.", "Nothing was lost."), 2, "d3po: It broke. Nothing was lost. Mend it."),
    ],
)
def test_what_goes_wrong_is_told_without_a_traceback(error, status, told, monkeypatch, capsys):
    monkeypatch.setattr("d3po_core.cli.import_module", lambda *_: failing(error))
    assert main(["info"]) == status
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("d3po_core.cli.import_module", lambda *_: failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["info"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "example:" in said and f"d3po {name} " in said
    assert all(len(line) <= 120 for line in said.splitlines())


def test_the_overview_names_every_command(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"    {name}" in said for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("d3po 0.")


def test_it_runs_as_a_module_and_into_a_closed_pipe():
    command = f"{sys.executable} -m d3po_core | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "usage: d3po COMMAND [options]\n" and "Traceback" not in done.stderr


class Terminal:
    """Somewhere to draw that says it is, or is not, looked at."""

    def __init__(self, live: bool) -> None:
        self.text, self._live = "", live

    def isatty(self) -> bool:
        return self._live

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("live", [True, False])
def test_the_bar_ends_full_and_stays_on_its_line(monkeypatch, live):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal(live))
    bar = ProgressBar("Drawing")
    for done in range(1, 6):
        bar.show(done, 5, f"picture {done}")
    bar.close()
    assert terminal.text.count("\n") == 1  # one line, redrawn; or, unseen, only the last
    assert "Drawing [########################] 5 of 5, 00:00 left, picture 5" in terminal.text
    assert live or "3 of 5" not in terminal.text
    assert terminal.text.isascii()


@pytest.mark.parametrize("live", [True, False])
def test_the_bar_shows_that_the_network_works(monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    """Steps of one second, ten of them before each report: a terminal sees each, a file one in ten seconds."""
    now = [0.0]
    monkeypatch.setattr(sys, "stderr", terminal := Terminal(live))
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])
    with ProgressBar("Drawing") as bar:
        for done in range(1, 3):
            for _ in range(11):
                now[0] += 1.0
                check_stop()
            bar.show(done, 2, f"picture {done}")
    check_stop()  # nobody listens any more
    seen = re.findall(r"Drawing(?: \[[-#]{24}\] 1 of 2, [^\r]* left, picture 1)?, (\d+) steps?", terminal.text)
    assert seen == ([*map(str, range(1, 12))] * 2 if live else ["10", "10"])
    assert "2 of 2" in terminal.text and terminal.text.isascii()


@pytest.mark.parametrize("device", ["cuda:99", "banana", "cpu:x"])
def test_a_device_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str) -> None:
    arguments = ["sample", "--run", str(tmp_path / "run"), "--prompt", "a red tulip by day", "--device", device]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f"There is no device '{device}' on this computer. Choose one of" in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [["--prompt", "a red tulip by day " * 40], ["--prompt", " "], ["--prompt", "a rose", "--policy", "3"]]
)
def test_a_refused_begin_leaves_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    assert main(["sample", "--run", str(tmp_path / "run"), "--groups", "1", "--steps", "2", *wrong]) == 2
    assert capsys.readouterr().err.startswith("d3po: ")
    assert list(tmp_path.iterdir()) == []
