"""The whole loop through the command line, on a tiny random model: drawn, picked, taught, judged, exported, resumed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d3po_core.cli import main
from d3po_core.run import Run
from d3po_core.run.groups import Groups
from d3po_core.training.preference_optimizer import PreferenceOptimizer
from tests.lora_networks import to_load
from tests.tiny_pipelines import tiny_sd

PROMPTS = ["a red fox", "a blue house", "a green tree"]
SAMPLE = ["--steps", "4", "--guidance-scale", "2", "--batch", "8"]
TRAIN = ["--epochs", "1", "--rank", "2", "--alpha", "2", "--warmup", "0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A pipeline folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny_sd().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taught(model, tmp_path_factory) -> Path:
    """A run taken once around the loop. What the commands say is checked by what they leave behind."""
    folder = tmp_path_factory.mktemp("taught") / "my taste"
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n\n")
    drawing = ["--model", str(model), "--prompts", str(prompts), "--groups", "12", "--held-out", "0.25", *SAMPLE]
    assert main(["sample", "--run", str(folder), *drawing]) == 0
    assert main(["annotate", "--run", str(folder), "--scorer", "warmth"]) == 0
    assert main(["train", "--run", str(folder), *TRAIN]) == 0
    return folder


@pytest.fixture(scope="module")
def unpicked(model, tmp_path_factory) -> Path:
    """A run with groups and no picks."""
    folder = tmp_path_factory.mktemp("unpicked") / "run"
    arguments = ["--model", str(model), "--prompt", "a fox", "--groups", "9", "--candidates", "3", *SAMPLE]
    assert main(["sample", "--run", str(folder), *arguments]) == 0
    return folder


@pytest.fixture
def drawn(unpicked, tmp_path) -> Path:
    """A copy of it."""
    return copied(unpicked, tmp_path / "run")


def copied(run: Path, to: Path) -> Path:
    """A run's copy, which is a run."""
    shutil.copytree(run, to)
    return to


def sampling_settings(run: Run) -> list[dict[str, Any]]:
    return [group.settings for group in run.groups.select()]


def test_the_loop_leaves_a_whole_run(taught):
    run = Run.open(taught)
    assert len(run.groups.select()) == 12 and len(run.groups.select(picked=True)) == 12
    assert 1 <= sum(group.held_out for group in run.groups.select()) <= 11
    assert {group.prompt for group in run.groups.select()} == set(PROMPTS)
    assert {stored.who for stored in run.picks.standing()} == {"warmth"}
    (round,) = run.rounds.all()
    assert round.finished and run.rounds.lora("1") and 0 <= round.summary.strength <= 1
    manifest = run.manifest()
    assert manifest["device"] and manifest["train"]["epochs"] == 1 and manifest["lora"]["rank"] == 2
    assert run.metrics.read()


def test_info_tells_and_frees(taught, tmp_path, capsys):
    copy = str(copied(taught, tmp_path / "copy"))
    assert main(["info", "--run", copy]) == 0
    said = capsys.readouterr().out
    assert "Groups:   12 (3 held out)" in said and "12 favourite" in said and "Round 1:" in said and "tensors" in said
    assert main(["info", "--run", copy, "--free-space"]) == 0
    assert re.search(r"Freed .*B: 9 groups", capsys.readouterr().out)
    assert main(["info", "--run", copy]) == 0
    assert "9 freed" in capsys.readouterr().out


def test_evaluate_writes_figures_and_a_picture(taught, tmp_path, capsys):
    arguments = ["--scorer", "warmth", "--seeds", "3", "--prompt", "a fox", "--prompt", "a tree", "--to", str(tmp_path)]
    assert main(["evaluate", "--run", str(taught), *arguments]) == 0
    said = capsys.readouterr().out
    assert said.count("chance 50%") == 2 and "6 images a side" in said
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(figures) == {"deterministic", "training"}
    assert 0 <= figures["deterministic"]["comparison"]["win_rate"] <= 1
    assert (tmp_path / "before-after.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_uses_the_runs_own_prompts_and_says_so(taught, capsys):
    assert main(["evaluate", "--run", str(taught), "--scorer", "compressibility", "--seeds", "2"]) == 0
    assert "prompts that were trained on" in capsys.readouterr().out
    assert (taught / "evaluations").is_dir()


def test_the_exported_lora_loads_in_plain_diffusers(taught, tmp_path):
    assert main(["export", "--run", str(taught), "--to", str(tmp_path / "loras")]) == 0
    (path,) = (tmp_path / "loras").iterdir()
    assert path.name == "my-taste-round1.safetensors"
    pipe = tiny_sd()
    pipe.load_lora_weights(**to_load(path))
    assert pipe.get_active_adapters()


def test_export_never_overwrites(taught, tmp_path, capsys):
    target = tmp_path / "mine.safetensors"
    assert main(["export", "--run", str(taught), "--round", "1", "--to", str(target)]) == 0
    before = target.read_bytes()
    assert main(["export", "--run", str(taught), "--to", str(target)]) == 2
    assert "already" in capsys.readouterr().err and target.read_bytes() == before
    for _ in range(2):
        assert main(["export", "--run", str(taught), "--to", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("my-taste-round1*.safetensors"))) == 2


def test_the_next_round_draws_with_the_lora_and_remembers_everything(taught, tmp_path, capsys):
    copy = str(copied(taught, tmp_path / "copy"))
    assert main(["sample", "--run", copy, "--groups", "2"]) == 0
    assert main(["sample", "--run", copy, "--groups", "2", "--policy", "base", "--steps", "5"]) == 0
    run = Run.open(copy)
    assert [group.policy == "base" for group in run.groups.select()[-4:]] == [False, False, True, True]
    assert [settings["steps"] for settings in sampling_settings(run)[-4:]] == [4, 4, 5, 5]
    assert {settings["guidance_scale"] for settings in sampling_settings(run)} == {2.0}
    assert {group.prompt for group in run.groups.select()} == set(PROMPTS)
    assert run.groups.select()[-1].round == 2
    assert main(["sample", "--run", copy, "--policy", "7"]) == 2
    assert "no LoRA of a round '7'. The run has 1." in capsys.readouterr().err


def test_another_model_is_noticed_before_anything_is_drawn(taught, tmp_path, capsys):
    tiny_sd(seed=1).save_pretrained(tmp_path / "other")
    before = len(Run.open(taught).groups.select())
    for command in (["sample"], ["train"], ["evaluate", "--scorer", "warmth"]):
        assert main([*command, "--run", str(taught), "--model", str(tmp_path / "other")]) == 2
        assert "begun with another base model" in capsys.readouterr().err
    assert len(Run.open(taught).groups.select()) == before


def test_a_run_of_another_program_asks_for_its_model(model, taught, tmp_path, capsys):
    """Hosts have their model in memory and no path for it."""
    folder = tmp_path / "elsewhere"
    identity = Run.open(taught).model["identity"]
    Run.create(folder, model={"identity": identity}, settings={})
    assert main(["info", "--run", str(folder)]) == 0
    assert main(["sample", "--run", str(folder), "--prompt", "a fox", "--groups", "1", *SAMPLE]) == 2
    assert "Name it with --model" in capsys.readouterr().err
    drawing = ["--model", str(model), "--prompt", "a fox", "--groups", "1", *SAMPLE]
    assert main(["sample", "--run", str(folder), *drawing]) == 0


def test_ctrl_c_while_drawing_keeps_what_was_drawn(model, tmp_path, monkeypatch, capsys):
    real, calls = Groups.add, []

    def add_group(self, **what):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(what)
        return real(self, **what)

    monkeypatch.setattr(Groups, "add", add_group)
    arguments = ["--model", str(model), "--prompt", "a fox", "--groups", "8", *SAMPLE]
    assert main(["sample", "--run", str(tmp_path / "run"), *arguments]) == 130
    said = capsys.readouterr().out
    assert "Drew 3 groups" in said and "all of them are kept" in said and "--groups 5 draws the rest" in said
    assert len(Run.open(tmp_path / "run").groups.select()) == 3


def test_a_size_that_the_model_cannot_draw_leaves_no_run_behind(model, tmp_path, capsys):
    arguments = ["--model", str(model), "--prompt", "a fox", "--width", "71", *SAMPLE]
    assert main(["sample", "--run", str(tmp_path / "run"), *arguments]) == 2
    assert "71" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_training_keeps_what_was_learnt(drawn, monkeypatch, capsys):
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--kind", "ranking"]) == 0
    real, calls = PreferenceOptimizer.update, []

    def update(self):
        calls.append(self.done)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(PreferenceOptimizer, "update", update)
    assert main(["train", "--run", str(drawn), *TRAIN]) == 130
    assert "goes on from here" in capsys.readouterr().out
    run = Run.open(drawn)
    unfinished = run.rounds.open()
    assert unfinished is not None and run.rounds.load_state(unfinished.number)[1]["done"] == 2
    assert main(["info", "--run", str(drawn)]) == 0
    assert "unfinished" in capsys.readouterr().out

    assert main(["train", "--run", str(drawn), "--finish"]) == 0
    (round,) = Run.open(drawn).rounds.all()
    assert round.finished and "Stopped" in round.summary.reason


def interrupted(arguments: list[str], begun: Callable[[], object]) -> str:
    """Press Ctrl+C in a process of its own once its work has begun, and return what it said."""
    command = [sys.executable, "-m", "d3po_core", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as process:
        end = time.monotonic() + 120
        while not begun() and process.poll() is None:
            assert time.monotonic() < end, "it never began"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        pressed, said = time.monotonic(), ""
        while "Stopping…" not in said and (piece := process.stdout.read(1)):
            said += piece
        assert "Stopping…" in said and time.monotonic() - pressed < 5
        said += process.stdout.read()
        assert process.wait(60) == 130, said
    assert "Traceback" not in said
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent Ctrl+C alone")
def test_ctrl_c_in_the_middle_of_a_group(model, tmp_path):
    """All pictures are one batch of 400 evaluations, so between groups it could not be obeyed for long."""
    folder = tmp_path / "run"
    drawing = ["--model", str(model), "--prompt", "a fox", "--groups", "16", "--batch", "64", "--steps", "400"]
    said = interrupted(["sample", "--run", str(folder), *drawing], (folder / "run.sqlite3").exists)
    assert "Drew 0 groups" in said or "What was done before is kept" in said
    assert Run.open(folder).groups.select() == []


@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent Ctrl+C alone")
def test_ctrl_c_in_the_middle_of_training(drawn):
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--kind", "ranking"]) == 0
    long = [*TRAIN[2:], "--epochs", "400", "--batch", "1", "--trained-steps", "0"]
    metrics = drawn / "metrics.jsonl"
    said = interrupted(["train", "--run", str(drawn), *long], lambda: metrics.is_file() and metrics.stat().st_size)
    assert "what was learnt is kept" in said
    run = Run.open(drawn)
    done = run.rounds.load_state(1)[1]["done"]
    assert run.rounds.stopped() is not None and done >= len(run.metrics.read()) - 1 >= 0
    assert main(["train", "--run", str(drawn), "--finish"]) == 0
    assert Run.open(drawn).rounds.all()[0].finished


def test_ctrl_c_while_before_and_after_are_drawn_says_130_and_keeps_the_lora(drawn, monkeypatch, capsys):
    from d3po_core.app import training

    def pressed(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--kind", "ranking"]) == 0
    monkeypatch.setattr(training, "draw_previews", pressed)
    before = signal.getsignal(signal.SIGINT)
    assert main(["train", "--run", str(drawn), *TRAIN, "--no-judge"]) == 130
    assert "LoRA: " in capsys.readouterr().out and Run.open(drawn).rounds.lora("1")
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_never_cuts_a_step_of_the_optimiser_in_two(drawn, monkeypatch):
    """What is on the disk then is the state after whole updates: gone on with, it ends as a round without a stop."""
    from d3po_core.training.passes import LoraOptimizer

    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--kind", "ranking"]) == 0
    real, steps = LoraOptimizer.step, []

    def step(self, done):
        steps.append(done)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(self, done)

    monkeypatch.setattr(LoraOptimizer, "step", step)
    assert main(["train", "--run", str(drawn), *TRAIN, "--no-judge", "--batch", "1"]) == 130
    assert len(steps) == 2 and Run.open(drawn).rounds.load_state(1)[1]["done"] in (1, 2)


@pytest.mark.parametrize("place", ["right after a step", "in the save that the first press asked for"])
def test_ctrl_c_keeps_every_update_wherever_it_comes(drawn, monkeypatch, place):
    """A press right after the second update, and another one while the state is saved because of it."""
    from d3po_core.training import round_trainer
    from d3po_core.training.preference_optimizer import PreferenceOptimizer

    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--kind", "ranking"]) == 0
    update, pack, updates = PreferenceOptimizer.update, round_trainer.pack_optimizer, []

    def pressed_after_a_step(self):
        done = update(self)
        updates.append(self.done)
        if self.done == 2:
            signal.raise_signal(signal.SIGINT)
        return done

    def pressed_in_the_save(*state):
        if updates == [1, 2] and "save" in place:
            signal.raise_signal(signal.SIGINT)
        return pack(*state)

    monkeypatch.setattr(PreferenceOptimizer, "update", pressed_after_a_step)
    monkeypatch.setattr(round_trainer, "pack_optimizer", pressed_in_the_save)
    assert main(["train", "--run", str(drawn), *TRAIN, "--no-judge", "--batch", "1"]) == 130
    assert updates == [1, 2] and Run.open(drawn).rounds.load_state(1)[1]["done"] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent Ctrl+C alone")
def test_a_third_ctrl_c_ends_what_hangs():
    hangs = (
        "import time\nfrom d3po_core.cli import CtrlC\nfrom d3po_core.errors import unbroken\n"
        "with CtrlC().obeyed(), unbroken():\n    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hangs], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ) as process:
        for said in ("begun", "Stopping…", "Once more ends it at once, without saving."):
            while (line := process.stdout.readline()) != f"{said}\n":
                assert line == "\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT


def test_training_without_a_usable_pick_is_told(drawn, capsys):
    assert main(["train", "--run", str(drawn)]) == 2
    assert "Nothing has been picked" in capsys.readouterr().err


def picks_of(folder: Path) -> dict[str, Any]:
    return {stored.group_id: stored.pick for stored in Run.open(folder).picks.standing()}


def scores_of(run: Run) -> dict[str, list[float]]:
    """Warmth, computed anew from the files."""
    import numpy as np
    from PIL import Image

    found = {}
    for group in run.groups.select():
        images = [
            np.asarray(Image.open(run.groups.image_path(group.id, c)), dtype=np.float64)
            for c in range(group.candidates)
        ]
        found[group.id] = [float(image[..., 0].mean() - image[..., 2].mean()) for image in images]
    return found


def test_a_scorer_picks_what_it_likes_best(drawn):
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth"]) == 0
    scores = scores_of(Run.open(drawn))
    assert len(scores) == 9
    for group, pick in picks_of(drawn).items():
        assert pick.kind == "favourite" and scores[group][pick.order[0]] == pytest.approx(max(scores[group]), abs=1e-4)


def test_a_scorer_ranks(drawn):
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--kind", "ranking"]) == 0
    scores = scores_of(Run.open(drawn))
    for group, pick in picks_of(drawn).items():
        ranked = [scores[group][candidate] for candidate in pick.order]
        assert pick.kind == "ranking" and len(ranked) == 3 and ranked == sorted(ranked, reverse=True)


@pytest.mark.parametrize("kind", ["favourite", "ranking"])
def test_flips_are_mistakes(drawn, kind, capsys):
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--flip", "1", "--kind", kind]) == 0
    assert "9 of them mistaken" in capsys.readouterr().out
    scores = scores_of(Run.open(drawn))
    for group, pick in picks_of(drawn).items():
        assert scores[group][pick.order[0]] < max(scores[group])


def test_annotating_goes_on_where_it_stopped_and_repeats_itself(drawn, tmp_path, capsys):
    twin = copied(drawn, tmp_path / "twin")
    for limits, folder in ((["4", "2", "99"], drawn), (["99"], twin)):
        for limit in limits:
            arguments = ["--scorer", "warmth", "--flip", "0.4", "--seed", "3", "--limit", limit]
            assert main(["annotate", "--run", str(folder), *arguments]) == 0
    assert picks_of(drawn) == picks_of(twin)
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth"]) == 0
    assert "Picked in 0 groups" in capsys.readouterr().out


def test_random_picks_do_not_look(drawn):
    assert main(["annotate", "--run", str(drawn), "--random", "--seed", "5"]) == 0
    scores = scores_of(Run.open(drawn))
    best = [scores[group][pick.order[0]] == max(scores[group]) for group, pick in picks_of(drawn).items()]
    assert 0 < sum(best) < 9
    assert {stored.who for stored in Run.open(drawn).picks.standing()} == {"random"}


def test_picks_travel_as_the_reference_repositorys_json(drawn, tmp_path, capsys):
    empty = str(copied(drawn, tmp_path / "empty"))
    assert main(["annotate", "--run", str(drawn), "--scorer", "warmth", "--export", str(tmp_path / "a.json")]) == 0
    rows = json.loads((tmp_path / "a.json").read_text())
    assert len(rows) == 9 and all(sum(row) == 1 for row in rows)
    assert main(["annotate", "--run", empty, "--import", str(tmp_path / "a.json")]) == 0
    assert "Imported 9 picks." in capsys.readouterr().out
    assert main(["annotate", "--run", empty, "--import", str(tmp_path / "nowhere.json")]) == 2


def test_unequal_scores_are_needed_for_a_pick():
    from d3po_core.rewards.auto_pick import pick_of

    luck = torch.Generator().manual_seed(0)
    assert pick_of(torch.tensor([0.5, 0.5]), "favourite", False, luck).kind == "tie"
