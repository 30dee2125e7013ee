"""The student of the embedded model: its noise levels, how it is drawn with, and what is stored of it."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import any_taste, few_step_garden
from benchmarks.few_step_garden import STEPS, finer, sharpness, trailing
from d3po_core.models import load_model

LEVELS = torch.tensor([14.6, 4.0, 1.6, 0.7, 0.0], dtype=torch.float64)


def test_the_teachers_levels_pass_the_students() -> None:
    levels = finer(LEVELS, 5)
    assert len(levels) == 21 and bool((levels[1:] < levels[:-1]).all())
    assert torch.allclose(levels[::5], LEVELS, atol=1e-9)


def test_a_students_schedule_begins_at_the_highest_level_and_ends_without_noise() -> None:
    model = load_model("garden")
    highest = model.denoiser._schedule.table[-1]  # of all that the model was trained at
    levels = trailing(model).denoiser.sigmas(STEPS, "model")
    assert len(levels) == STEPS + 1 and levels[0] == highest and levels[-1] == 0


def test_sharpness_is_the_mean_difference_of_neighbours() -> None:
    rows = torch.zeros(1, 3, 4, 4)
    rows[:, :, ::2] = 10 / 255  # below each other they differ by 10, beside each other by none
    assert sharpness(rows) == pytest.approx(5, abs=1e-4)


def test_a_taste_is_drawn_as_the_student_is_made_for_unless_settings_say_otherwise() -> None:
    how = any_taste.settings(any_taste.Case("warmth", 0, few_step=True))
    assert (how.steps, how.guidance_scale, how.sampler) == (4, 1.0, "lcm")
    other = any_taste.settings(any_taste.Case("warmth", 0, few_step=True, draw='{"window": "all", "steps": 8}'))
    assert (other.steps, other.window, other.guidance_scale) == (8, "all", 1.0)


def test_settings_are_written_as_numbers_truths_and_words() -> None:
    written = any_taste.written(["sampler=lcm", "eta=0.5", "steps=8", "judge=false"])
    assert json.loads(written) == {"sampler": "lcm", "eta": 0.5, "steps": 8, "judge": False}


def test_every_stored_outcome_is_of_a_way_that_is_compared() -> None:
    lines = few_step_garden.RESULTS.read_text("utf-8").splitlines()
    known = {(way.model, way.settings, way.sampler) for way in few_step_garden.ways()}
    assert lines and all((row["model"], row["settings"], row["sampler"]) in known for row in map(json.loads, lines))
    assert {json.loads(line)["made_of"] for line in lines} == {few_step_garden.made_of()}
