"""Stored outcomes stay known: their digests depend on what was set, not on which settings there are."""

from __future__ import annotations

import json
from dataclasses import dataclass, make_dataclass

import pytest

from benchmarks import garden, learning, methods, planted_defects
from d3po_core.settings import TrainSettings, replace


def rows(module) -> list[dict]:
    """Every stored outcome; none before the first, or where all were made with another recipe."""
    lines = module.RESULTS.read_text("utf-8").splitlines() if module.RESULTS.exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("module", [learning, methods])
def test_every_stored_outcome_of_an_experiment_is_known(module):
    by_name = {experiment.name: experiment for experiment in module.EXPERIMENTS}
    for row in rows(module):
        assert learning.made_of(by_name[row["experiment"]], row["seed"]) == row["made_of"], row["experiment"]


def test_every_stored_outcome_of_planted_defects_is_known():
    by_name = {experiment.name: experiment for experiment in planted_defects.EXPERIMENTS}
    for row in rows(planted_defects):
        made_of = planted_defects.made_of(by_name[row["experiment"]], planted_defects.Planting(), row["seed"])
        assert made_of == row["made_of"], row["experiment"]


def test_only_what_was_changed_counts():
    settings = replace(TrainSettings(seed=3), {"beta": 0.1, "epochs": 6, "micro_batch": 2})  # 6 is the default
    assert garden.changed_settings(settings) == {"seed": 3, "beta": 0.1}
    later = make_dataclass("Later", [("new", bool, False)], bases=(TrainSettings,), frozen=True)
    assert garden.changed_settings(later(seed=3, beta=0.1)) == {"seed": 3, "beta": 0.1}


@pytest.mark.parametrize("own", [0.0, None])
def test_the_methods_own_value_counts_for_nothing_however_it_is_written(own):
    @dataclass(frozen=True)
    class Settings:
        beta: float | None = own

    assert garden.changed_settings(Settings()) == {}


def test_another_setting_is_another_outcome():
    experiment = next(e for e in learning.EXPERIMENTS if e.name == "default-64")
    known = learning.made_of(experiment, 0)
    assert learning.made_of(learning.changed(experiment, ["beta=100"]), 0) != known
    assert learning.made_of(experiment, 1) != known
