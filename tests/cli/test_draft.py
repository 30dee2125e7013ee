"""`d3po draft` on the embedded model: a LoRA without a pick, stopped and gone on with, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from d3po_core.cli import main
from d3po_core.run import Run
from d3po_core.training.reports import RewardReport
from d3po_core.training.reward_trainer import RewardTrainer

QUICK = ["--updates", "2", "--batch", "1", "--prompt", "a red tulip by day"]


def test_a_reward_becomes_a_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "warmer"
    assert main(["draft", "--run", str(folder), "--reward", "warmth", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "Round 1 took" in said and "Mean warmth went from" in said
    run = Run.open(folder)
    (round,) = run.rounds.all()
    assert round.settings["reward_name"] == "warmth" and round.summary.figures["reward"] != 0
    lora = run.rounds.lora(run.rounds.current_policy())
    assert lora is not None
    with safe_open(lora, "pt") as file:
        names = list(file.keys())
        assert any(name.startswith("lora_unet_") for name in names)
        assert any(bool(file.get_tensor(name).any()) for name in names if "lora_up" in name)
    run.close()
    assert main(["draft", "--run", str(folder), "--reward", "0.5*warmth + contrast", "--variant", "refl", *QUICK]) == 0
    assert "Round 2 took" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        ("compressibility", "'compressibility' is not differentiable"),
        ("beauty", "There is no reward called 'beauty'"),
        ("clip:/nowhere", "/nowhere"),
    ],
)
def test_rewards_that_cannot_be_followed_are_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: str, told: str
) -> None:
    assert main(["draft", "--run", str(tmp_path / "run"), "--reward", reward, *QUICK]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stopped_round_is_finished_without_its_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stopped"
    assert main(["draft", "--run", str(folder), "--finish"]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert main(["draft", "--run", str(folder), *QUICK]) == 2
    assert "No reward is named. Add --reward" in capsys.readouterr().err and not folder.exists()
    told, tell = [], RewardTrainer.log

    def pressed(trainer: RewardTrainer, report: RewardReport) -> RewardReport:
        told.append(tell(trainer, report))
        if len(told) == 2:
            raise KeyboardInterrupt
        return told[-1]

    monkeypatch.setattr(RewardTrainer, "log", pressed)
    assert main(["draft", "--run", str(folder), "--reward", "warmth+contrast", *QUICK, "--updates", "5"]) == 130
    run = Run.open(folder)
    stopped = run.rounds.stopped()
    assert stopped and stopped.settings["written"] == "warmth + contrast" and len(run.metrics.read()) == 2
    assert main(["draft", "--run", str(folder), "--finish"]) == 0
    assert "Stopped before the end." in capsys.readouterr().out
    assert (
        run.rounds.stopped() is None
        and len(run.metrics.read()) == 2
        and run.rounds.lora(run.rounds.current_policy()) is not None
    )
    run.close()
    assert main(["draft", "--run", str(folder), "--finish"]) == 2
    assert "There is nothing to finish." in capsys.readouterr().err


def test_a_reward_from_picks_is_written_once_it_is_better_than_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = tmp_path / "run", tmp_path / "mine.safetensors"
    sampled = ["--groups", "24", "--steps", "4", "--prompt", "a red tulip by day", "--prompt", "a blue daisy at night"]
    assert main(["sample", "--run", str(folder), *sampled]) == 0
    assert main(["reward", "--run", str(folder), "--to", str(target)]) == 2
    assert "0 groups with a preference" in capsys.readouterr().err
    assert main(["annotate", "--run", str(folder), "--scorer", "warmth"]) == 0
    capsys.readouterr()
    assert main(["reward", "--run", str(folder), "--to", str(target)]) == 0
    assert "It foretells" in capsys.readouterr().out and target.is_file()
    assert main(["reward", "--run", str(folder), "--to", str(target)]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["draft", "--run", str(folder), "--reward", f"picks:{target}", "--updates", "1"]) == 0
