"""What the documents say is there is there: links, commands, flags, benchmarks, files and functions."""

from __future__ import annotations

import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from d3po_core.cli import COMMANDS
from d3po_core.cli.flags import make_parser

ROOT = Path(__file__).resolve().parents[1]
GARDEN = ROOT / "d3po_core" / "embedded" / "garden"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
HELP = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in sorted((ROOT / "web" / "docs").rglob("*.md"))}
everywhere = pytest.mark.parametrize("name", TEXTS)


def anchors(text: str) -> set[str]:
    """The ids that GitHub gives a page's headings: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(program: str) -> list[str]:
    """All that the pages tell people to type of one program, in blocks and within sentences."""
    found = []
    for text in TEXTS.values():
        found += re.findall(rf"^({program}\b.*)$", text, re.M)
        found += re.findall(rf"`({program}\b[^`]*)`", text)
    return sorted(set(found))


@everywhere
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[name]):
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path) if path else ROOT / name
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text("utf-8")), target


@pytest.mark.parametrize("line", [line for line in commands("d3po ") if line.split()[1] in COMMANDS])
def test_commands_and_flags_exist(line):
    _, name, *arguments = shlex.split(line)
    parser = make_parser(name, import_module(f"d3po_core.cli.{name}"))
    flags = {word for word in arguments if word.startswith("--")}
    assert flags <= set(parser._option_string_actions)
    if "--run" in flags and not {"FOLDER", "NAME"} & set(arguments):
        parser.parse_args(arguments)


def test_no_command_is_made_up():
    assert {line.split()[1] for line in commands("d3po ")} <= {*COMMANDS, "COMMAND"}


@pytest.mark.parametrize("line", commands("python -m benchmarks"))
def test_benchmarks_and_their_flags_exist(line):
    _, _, module, *arguments = shlex.split(line)
    place = ROOT / module.replace(".", "/")
    file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    assert file.is_file()
    source = file.read_text("utf-8")
    if "benchmarks.learning import" in source:
        source += (ROOT / "benchmarks" / "learning.py").read_text("utf-8")
    assert all(f'"{word}"' in source for word in arguments if word.startswith("--"))


def test_the_experiments_that_measured_names_exist():
    learning = import_module("benchmarks.learning")
    rows = re.findall(r"\| `([^`]+)` \|$", TEXTS["docs/measured.md"], re.M)
    assert rows and set(rows) <= {experiment.name for experiment in learning.EXPERIMENTS}


@pytest.mark.skipif(not (GARDEN / "unet").exists(), reason="the embedded model is not there")
def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["docs/cli.md"], re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(code.replace("groups=64", "groups=2, steps=6"))
    runpy.run_path("example.py")
    assert capsys.readouterr().out.strip().endswith(".safetensors")


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_and_functions_exist(name):
    """`folder/file` in a page exists, and what stands behind an arrow after it is defined in it."""
    missing = []
    for path, symbol in re.findall(r"`([\w.]+/[\w./]*)`(?:\s+→\s+`([\w.]+)`)?", TEXTS[name]):
        file = ROOT / path
        defined = rf"(?:class|def|function) {symbol}\b|^(?:export )?(?:const )?{symbol}(?:: [^=]+)? ="
        if not file.exists() or (symbol and not re.search(defined, file.read_text("utf-8"), re.M)):
            missing.append(f"{path} {symbol}")
    assert missing == []


def said_in_code() -> str:
    """All Python and words of the gallery, with strings that go on in the next line joined."""
    folders = ("d3po_core", "d3po_panels", "d3po_studio", "d3po_webui", "nodes", "scripts", "install.py", "web/text")
    files = [ROOT / name if (ROOT / name).is_file() else (ROOT / name).rglob("*.*") for name in folders]
    paths = [path for found in files for path in ([found] if isinstance(found, Path) else found)]
    text = "\n".join(path.read_text("utf-8") for path in paths if path.suffix in (".py", ".json"))
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_messages_are_quoted_as_they_are():
    """What stands in the pages' tables of messages; dots, numbers and remarks in brackets are left out."""
    known, missing = said_in_code(), []
    for page in ("docs/comfyui.md", "docs/webui.md"):
        table = TEXTS[page].partition("| message |")[2]
        for message in re.findall(r"^\| `?(.+?)`? \|", table, re.M):
            parts = re.split(r"…|\d+(?: of \d+)?|\(.*\)|`", message)
            missing += [message for part in parts if len(part.strip()) > 5 and part.strip() not in known]
    assert missing == []


@pytest.mark.parametrize("name", [*TEXTS, *HELP])
def test_numbers_are_written_one_way(name):
    """A digit before the point, no space before %, the sign ±."""
    text = {**TEXTS, **HELP}[name]
    assert re.findall(r"(?<![\w.\])*])\.\d|\d %|\+/-", text) == []
