"""A reward's memory is given back when its round has ended, however that came, and kept while it is only paused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from d3po_core.app import training
from d3po_core.app.training import RewardRequest
from d3po_core.errors import D3POError
from d3po_core.rewards import Reward
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings


class Stopped(Exception):
    pass


class Opened:
    """Stands in for a trainer that knows nothing of its memory."""

    closed = False

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def memory(self) -> None:
        return None


@pytest.mark.parametrize(("ending", "shown"), [("saved", 1), ("paused", 0), ("stopped", 1), ("refused", 1)])
def test_a_reward_is_shown_an_image_on_the_processor_at_the_end(
    ending: str, shown: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[torch.Tensor] = []

    def likes(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        seen.append(images)
        if ending == "stopped":
            raise D3POError("It cannot score anything now.", "")  # must not hide why training ended
        return images.mean((1, 2, 3))

    def train_round(trainer: object, after_update: object) -> object:
        if ending == "stopped":
            raise Stopped
        return None if ending == "paused" else "a round"

    def opened(*_: object) -> object:
        if ending == "refused":
            raise D3POError("Another trainer is at work.", "")
        return Opened()

    monkeypatch.setattr(training, "train_round", train_round)
    monkeypatch.setattr(RewardRequest, "open", opened)
    reward = Reward("mine", "light", likes, True)
    request = RewardRequest(RewardSettings(), LoraSettings(), SampleSettings(), reward)
    with suppress(Stopped, D3POError):
        request.train(None, None, "hooks", lambda report: None)  # type: ignore[arg-type]
    assert [images.device.type for images in seen] == ["cpu"] * shown


def test_what_ended_training_is_raised_not_what_came_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        raise D3POError("It cannot score anything now.", "")

    def stop(trainer: object, after_update: object) -> object:
        raise Stopped

    monkeypatch.setattr(training, "train_round", stop)
    monkeypatch.setattr(RewardRequest, "open", lambda *_: Opened())
    request = RewardRequest(RewardSettings(), LoraSettings(), SampleSettings(), Reward("mine", "light", fail, True))
    with pytest.raises(Stopped):
        request.train(None, None, "hooks", lambda report: None)  # type: ignore[arg-type]


def test_a_stop_while_memory_is_said_closes_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the LoRA would stay on the host's network, and the run's lock held."""

    def stop() -> None:
        raise Stopped

    opened = Opened()
    monkeypatch.setattr(opened, "memory", stop)
    monkeypatch.setattr(RewardRequest, "open", lambda *_: opened)
    request = RewardRequest(RewardSettings(), LoraSettings(), SampleSettings(), None)
    with pytest.raises(Stopped):
        request.train(None, None, "hooks", lambda report: None)  # type: ignore[arg-type]
    assert opened.closed
