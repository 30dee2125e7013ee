"""A run whose LoRA file is missing, cut, overwritten or another model's: it says so, and goes on with all the rest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from d3po_core.app import loras
from d3po_core.app.loras import POLICY, go_on, lora_of, restore, scale_lora, way_on
from d3po_core.cli import main
from d3po_core.errors import D3POError
from d3po_core.exchange.share import share
from d3po_core.lora import load_lora, save_lora
from d3po_core.lora.weights import scale_weights
from d3po_core.run import LostLora, RoundSummary, Run, policy_id
from tests.lora_networks import tiny_sd1, tiny_sdxl, trained
from tests.run_helpers import make_run, put_group

Damage = Callable[[Path], object]


def another_models(path: Path) -> None:
    path.unlink()
    network = tiny_sdxl()
    save_lora(path, trained(network), network)


def one_bit(path: Path) -> None:
    """What safetensors itself does not notice."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Damage] = {
    "missing": Path.unlink,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "random": lambda path: path.write_bytes(os.urandom(5000)),
    "another model's": another_models,
    "one bit": one_bit,
}


def teach(run: Run, size: float) -> Path:
    network = tiny_sd1()
    weights = scale_weights(trained(network), size)
    number = run.rounds.begin({"train": {}})
    file = save_lora(run.folder / "loras" / f"taste-round{number}.safetensors", weights, network)
    run.rounds.finish(number, file, policy_id(file), RoundSummary())
    put_group(run, policy=policy_id(file), round=number + 1)
    return file


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = make_run(tmp_path / "taste", groups=1)
    for size in (0.5, 1.0):
        teach(run, size)
    return run


@pytest.mark.parametrize("name", DAMAGES)
def test_every_reader_says_the_same_and_one_call_goes_on(run: Run, tmp_path: Path, name: str) -> None:
    first, second = lora_of(run, 1), lora_of(run, 2)
    assert way_on(run) is None and go_on(run) is None
    DAMAGES[name](second)
    left = second.read_bytes() if second.exists() else None
    told = "missing" if name == "missing" else "damaged, or another file is in its place"
    readers: list[Callable[[], object]] = [
        lambda: run.rounds.lora(run.rounds.current_policy()),
        lambda: lora_of(run),
        lambda: lora_of(run, 2),
        lambda: scale_lora(run, 2, 0.5),
        lambda: share(run, tmp_path / "out.zip"),
        lambda: run.rounds.go_back(str(run.rounds.current_policy())),
    ]
    for read in readers:
        with pytest.raises(LostLora, match=f"LoRA of round 2 is {told}") as raised:
            read()
        assert "All picks, pictures and other rounds are saved." in str(raised.value) and raised.value.back_to == 1
    assert lora_of(run, 1) == first

    way = way_on(run)
    assert way is not None and (way.to, way.copy) == (1, None)
    go_on(run)
    assert run.rounds.current_policy() == policy_id(first) and lora_of(run) == first and way_on(run) is None
    assert (second.read_bytes() if second.exists() else None) == left  # not deleted, not repaired
    assert [each.number for each in run.rounds.all()] == [1, 2] and len(run.groups.select()) == 3

    with pytest.raises(LostLora, match="Name another round, or put the file"):
        lora_of(run, 2)  # which is not at work any more

    DAMAGES[name](first)
    assert go_on(run).to == 0 and run.rounds.current_policy() == "base"


def test_a_file_that_is_put_back_is_sound_again(run: Run, tmp_path: Path) -> None:
    file = lora_of(run)
    shutil.move(file, tmp_path / "away")
    assert way_on(run) is not None
    shutil.move(tmp_path / "away", file)
    assert way_on(run) is None and lora_of(run) == file


@pytest.mark.parametrize("exact", [True, False])
def test_a_copy_brings_the_lora_back(run: Run, tmp_path: Path, exact: bool) -> None:
    """Byte for byte, or with the metadata of a host's own, as in a web UI's folder."""
    file, copy = lora_of(run), tmp_path / "copies" / "mine.safetensors"
    copy.parent.mkdir()
    shutil.copyfile(file, copy)
    before = load_lora(file)[0]
    if not exact:
        from safetensors.torch import save_file

        save_file(before, copy, {POLICY: policy_id(file), "ss_output_name": "mine"})
    DAMAGES["random"](file)
    other = lora_of(run, 1)
    with pytest.raises(D3POError, match=r"is no copy of the LoRA of round 2\. Nothing was changed"):
        restore(run, 2, other)
    assert go_on(run, dict.fromkeys((other, tmp_path / "gone", copy), "")).to == 2
    after = load_lora(lora_of(run))[0]
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert lora_of(run).parent == file.parent and lora_of(run) != file and file.exists()
    assert [group.policy for group in run.groups.select()][-1] == run.rounds.current_policy()


def test_a_weaker_file_is_made_anew_from_the_whole_one(run: Run) -> None:
    whole, weak = lora_of(run), scale_lora(run, 2, 0.4)
    before = load_lora(weak)[0]
    DAMAGES["missing"](weak)
    with run.rounds.lock(), pytest.raises(D3POError, match="being trained"):
        go_on(run)
    assert go_on(run).to == 2
    after = load_lora(lora_of(run))[0]
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert run.rounds.all()[1].summary.lora_strength == 0.4 and whole.exists()


def test_a_stopped_round_whose_beginning_is_lost_begins_anew(run: Run) -> None:
    start = lora_of(run)
    number = run.rounds.begin({"train": {}, "start": policy_id(start)}, policy_id(start))
    run.rounds.save_state(number, {"w": torch.ones(2)}, {"done": 3})
    run.rounds.go_back("1")
    DAMAGES["cut"](start)
    assert way_on(run).to == 1
    with run.rounds.lock(), pytest.raises(D3POError, match="train"):
        go_on(run)
    assert run.rounds.stopped() is not None
    go_on(run)
    assert run.rounds.stopped() is None and way_on(run) is None and run.rounds.open().number == number
    (kept,) = run.rounds.folder_of(number).glob("set-aside-*.safetensors")
    assert kept.stat().st_size > 0


def test_a_stopped_round_goes_on_from_a_copy(run: Run, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    start, copy = lora_of(run), tmp_path / "copy.safetensors"
    save_file(load_lora(start)[0], copy, {POLICY: policy_id(start)})
    run.rounds.begin({"train": {}, "start": policy_id(start)}, policy_id(start))
    run.rounds.save_state(3, {"w": torch.ones(2)}, {"done": 3})
    DAMAGES["missing"](start)
    with run.rounds.lock(), pytest.raises(D3POError, match="being trained"):
        go_on(run, {copy: ""})
    go_on(run, {copy: ""})
    stopped = run.rounds.stopped()
    assert stopped is not None and stopped.settings["start"] == stopped.reference == policy_id(lora_of(run))


def test_the_command_line_names_the_command_that_goes_on(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    folder = run.folder.rename(tmp_path / "my taste's")
    copy, target = tmp_path / "copy.safetensors", Run.open(folder).rounds.lora("2")
    shutil.copyfile(target, copy)
    target.write_bytes(b"no LoRA")
    assert main(["export", "--run", str(folder), "--to", str(tmp_path / "x.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "LoRA of round 2 is damaged" in said and "go on from round 1: d3po info" in said
    command = shlex.split(said[said.index("d3po info") :])
    assert command == ["d3po", "info", "--run", str(folder), "--go-on"]
    assert main(["info", "--run", str(folder)]) == 0
    assert "Problem:  The LoRA of round 2 is damaged" in capsys.readouterr().out

    assert main(["info", "--run", str(folder), "--restore", str(tmp_path / "x.safetensors")]) == 2
    assert "is no copy" in capsys.readouterr().err
    assert main(["info", "--run", str(folder), "--restore", str(copy)]) == 0
    assert "The LoRA of round 2 is back" in capsys.readouterr().out
    assert main(["info", "--run", str(folder), "--restore", str(copy)]) == 2
    Run.open(folder).rounds.lora("2").unlink()

    assert main(command[1:]) == 0
    assert "go on from round 1; later rounds are kept" in capsys.readouterr().out
    assert main(["export", "--run", str(folder), "--to", str(tmp_path / "x.safetensors")]) == 0
    assert main(command[1:]) == 2
    assert "No LoRA file of this run is missing or damaged." in capsys.readouterr().err
    assert main(["info", "--run", str(folder), "--go-back", "base"]) == 0
    assert Run.open(folder).rounds.current_policy() == "base"


def test_the_command_line_makes_a_weaker_file_anew(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    weak = scale_lora(run, 2, 0.4)
    before = load_lora(weak)[0]
    DAMAGES["missing"](weak)
    assert main(["info", "--run", str(run.folder)]) == 0
    assert "make it anew from the stronger file that it was made from: d3po info" in capsys.readouterr().out
    assert main(["info", "--run", str(run.folder), "--go-on"]) == 0
    assert "The LoRA of round 2 is back." in capsys.readouterr().out
    after = load_lora(Run.open(run.folder).rounds.lora("2"))[0]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_command_line_says_where_a_stopped_round_goes_on(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has gone back to the original model, and round 3 departs from round 2, whose file is lost."""
    start = lora_of(run)
    number = run.rounds.begin({"train": {}, "start": policy_id(start)}, policy_id(start))
    run.rounds.save_state(number, {"w": torch.ones(2)}, {"done": 3})
    run.rounds.go_back("base")
    DAMAGES["missing"](start)
    assert main(["info", "--run", str(run.folder)]) == 0
    assert "go on from the original model: d3po info" in capsys.readouterr().out
    assert main(["info", "--run", str(run.folder), "--go-on"]) == 0
    said = capsys.readouterr().out
    assert "go on from the original model; later rounds are kept. The stopped round begins anew;" in said


@pytest.mark.parametrize("more", [["--restore", "x"], ["--go-back", "1"], ["--go-on"]])
def test_one_thing_is_done_in_one_call(run: Run, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    assert main(["info", "--run", str(run.folder), "--free-space", *more]) == 2
    assert f"--free-space and {more[0]} cannot be done in one call." in capsys.readouterr().err


def test_what_the_gallery_asks_again_and_again_reads_files_once_and_no_tensors(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak, copy = scale_lora(run, 2, 0.4), tmp_path / "other.safetensors"
    shutil.copyfile(lora_of(run, 1), copy)
    DAMAGES["missing"](weak)
    monkeypatch.setattr(loras, "load_lora", lambda path: pytest.fail(f"{path} is read"))
    way = way_on(run, {copy: ""})
    assert way is not None and (way.to, way.copy) == (2, None)
    monkeypatch.setattr(loras, "lora_metadata", lambda path: pytest.fail(f"{path} is read again"))
    assert way_on(run, {copy: ""}) is not None
