"""What work takes, in words, against sums done by hand."""

from __future__ import annotations

import pytest

from d3po_core.app.cost import drawing_cost, training_cost
from d3po_core.settings import SampleSettings, TrainSettings


@pytest.mark.parametrize(
    ("settings", "time"),
    [
        # 4 epochs x 256 pictures x 1 step x 0.1 s (half of 0.2 s, without guidance) x 3 = 307.2 s
        (TrainSettings(epochs=4), "5 min"),
        (TrainSettings(epochs=4, guided_loss=True), "10 min"),
        (TrainSettings(epochs=1), "77 s"),
        (TrainSettings(epochs=6), "6 min"),  # each of 5 recorded steps once
        (TrainSettings(epochs=1, trained_steps=2), "3 min"),
        (TrainSettings(epochs=6, trained_steps=0), "38 min"),  # all 5 of them, 6 times
        (TrainSettings(epochs=6, trained_steps=9), "6 min"),  # all 5 of them, once
    ],
)
def test_training_takes_its_forward_and_backward_passes(settings: TrainSettings, time: str) -> None:
    expected = f"64 groups of 256 pictures, about {time} at most"
    assert training_cost(64, 256, 5, settings, 0.2) == expected


def test_training_takes_a_time_that_is_not_known_yet() -> None:
    assert training_cost(64, 256, 5, TrainSettings(), None) == "64 groups of 256 pictures"


def test_drawing_takes_its_pictures() -> None:
    settings = SampleSettings(candidates=4)
    assert drawing_cost(8, settings, 512 * 512, None) == "8 groups of 4 are 32 images, 42 MB on disk"
    assert drawing_cost(8, settings, 512 * 512, 7.5) == "8 groups of 4 are 32 images, about 4 min, 42 MB on disk"
