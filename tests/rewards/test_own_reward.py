"""Rewards that somebody wrote: functions, and functions in a file that the command line names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3po_core.cli import main
from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.rewards import REWARDS, get_reward, require_differentiable, reward_of
from d3po_core.rewards.spec import canonical
from d3po_core.run import Run
from tests.run_helpers import make_run, put_group

FILE = '''
"""Rewards of somebody's own."""
import helper

def red(images, prompts):
    """Redness.

    More words."""
    import late_helper
    return images[:, 0].mean((1, 2)) * helper.FACTOR * late_helper.ONE

def quiet(images, prompts):
    " "
    return images.mean((1, 2, 3))

def steps(images, prompts):
    return torch.tensor([float(len(prompt)) for prompt in prompts])

import torch

def needs_words(images, prompts):
    return images.mean((1, 2, 3)) / [len(prompt.split()[0]) for prompt in prompts][0]

needs_words.differentiable = True

def wrong(images, prompts):
    return images.mean()

a_number = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "my+rewards"
    folder.mkdir()
    (folder / "helper.py").write_text("FACTOR = 2.0\n")
    (folder / "late_helper.py").write_text("ONE = 1.0\n")
    (folder / "my_rewards.py").write_text(FILE)
    return folder / "my_rewards.py"


def test_a_function_in_a_file_is_a_reward(file: Path) -> None:
    images = torch.rand(3, 3, 8, 8)
    reward = get_reward(f"{file}:red", own_code=True)
    assert torch.equal(reward(images, ["a"] * 3), images[:, 0].mean((1, 2)) * 2)
    assert reward.name == "my_rewards.py:red" and reward.likes == "Redness" and reward.differentiable
    assert reward.written == canonical(f" {file}:red") == f"{file}:red"
    assert not get_reward(f"{file}:steps", own_code=True).differentiable
    assert get_reward(f"{file}:quiet", own_code=True).likes == "what my_rewards.py:quiet scores highly"
    assert get_reward(f"{file}:needs_words", own_code=True).differentiable


def test_it_stands_in_sums(file: Path) -> None:
    images = torch.rand(2, 3, 8, 8)
    reward = get_reward(f"0.5*{file}:red + warmth", own_code=True)
    expected = images[:, 0].mean((1, 2)) + REWARDS["warmth"](images, ["", ""])
    torch.testing.assert_close(reward(images, ["", ""]), expected)
    with pytest.raises(D3POError, match=r"'my_rewards.py:steps' is not differentiable"):
        require_differentiable(get_reward(f"warmth + {file}:steps", own_code=True))


def test_its_code_is_run_only_where_it_may_be(file: Path) -> None:
    file.write_text(f"raise SystemExit('this ran')\n{FILE}")
    with pytest.raises(D3POError, match="is Python code, which is run on the command line only"):
        get_reward(f"{file}:red")


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (None, "red", "There is no file"),
        (FILE, "blue", "There is no function 'blue' in my_rewards.py"),
        (FILE, "a_number", "'my_rewards.py:a_number' is no reward"),
        ("import nowhere_to_be_found", "red", r"my_rewards.py cannot be run \(ModuleNotFoundError"),
        ("raise SystemExit('no')", "red", r"my_rewards.py cannot be run \(SystemExit"),
        ("def red(:", "red", r"my_rewards.py cannot be run \(SyntaxError"),
        ("def red(images, prompts):\n    return prompts[5]", "red", r"fails on two pictures of noise \(IndexError"),
    ],
)
def test_what_is_wrong_is_said(file: Path, content: str | None, name: str, reason: str) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(D3POError, match=reason):
        get_reward(f"{file}:{name}", own_code=True)


def test_scores_of_a_wrong_shape_are_refused(file: Path) -> None:
    with pytest.raises(D3POError, match="one number for each"):
        get_reward(f"{file}:wrong", own_code=True)(torch.rand(2, 3, 8, 8), ["", ""])


def test_any_function_or_object_may_come_from_elsewhere() -> None:
    """As other packs' nodes give them on a wire of rewards."""

    class Scorer:
        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            return images.mean((1, 2, 3))

    reward = reward_of(Scorer())
    assert reward.name == "Scorer" and reward.differentiable and not reward.written
    assert reward_of(reward) is reward
    with pytest.raises(D3POError, match="is no reward"):
        reward_of("warmth")  # type: ignore[arg-type]


def test_the_command_line_picks_by_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    groups = [put_group(run, number=number) for number in range(3)]
    assert main(["annotate", "--run", str(run.folder), "--scorer", f"{file}:red"]) == 0
    assert "Picked in 3 groups" in capsys.readouterr().out
    picks = {stored.group_id: stored for stored in Run.open(run.folder).picks.standing()}
    assert set(picks) == set(groups) and {each.who for each in picks.values()} == {"my_rewards.py:red"}
    assert all(isinstance(each.pick, Pick) for each in picks.values())
    assert main(["annotate", "--run", str(run.folder), "--scorer", f"{file}:blue"]) == 2
    assert "There is no function 'blue'" in capsys.readouterr().err
