"""Settings: every field can present itself, ranges hold, replace() round trips."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3po_core.cli.flags import read_config
from d3po_core.errors import D3POError
from d3po_core.settings import (
    FILLED,
    METHOD_DEFAULTS,
    PRESETS,
    LoraSettings,
    RewardSettings,
    SampleSettings,
    TrainSettings,
    fill_in,
    from_stored,
    prediction_beta,
    preset_values,
    replace,
    validate,
)

CLASSES = {"sample": SampleSettings, "lora": LoraSettings, "train": TrainSettings, "reward": RewardSettings}
PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"
FIELDS = [(cls, item) for cls in CLASSES.values() for item in dataclasses.fields(cls)]


def values(item: dataclasses.Field) -> st.SearchStrategy[Any]:
    """Every value that a field allows."""
    meta = item.metadata
    if meta["choices"]:
        return st.sampled_from(meta["choices"])
    kind = meta["kind"]
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(meta["low"], meta["high"])
    if kind is float:
        empty = item.default is None  # a beta of 0 is refused with most methods
        numbers = st.floats(meta["low"], meta["high"], allow_nan=False, allow_infinity=False, exclude_min=empty)
        return st.none() | numbers if empty else numbers
    return st.text(max_size=20)


def some_settings(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={item.name: values(item) for item in dataclasses.fields(cls)})


@pytest.mark.parametrize("cls", CLASSES.values())
def test_check_accepts_the_defaults(cls):
    assert validate(cls()) == cls()


@pytest.mark.parametrize(("cls", "item"), FIELDS, ids=[f"{cls.__name__}.{item.name}" for cls, item in FIELDS])
def test_every_field_presents_itself(cls, item):
    assert item.metadata["help"].endswith((".", ")"))
    assert item.metadata["kind"] in (int, float, bool, str)
    assert item.default is None or type(item.default) is item.metadata["kind"]
    assert isinstance(item.metadata["advanced"], bool)
    if item.metadata["kind"] in (int, float):
        assert item.metadata["low"] is not None


@pytest.mark.parametrize(("cls", "item"), FIELDS, ids=[f"{cls.__name__}.{item.name}" for cls, item in FIELDS])
def test_check_refuses_what_is_out_of_range_in_one_sentence(cls, item):
    low, high, choices = (item.metadata[name] for name in ("low", "high", "choices"))
    wrong: list[Any] = ["nonsense"] if choices else []
    wrong += [low - 1] if low is not None else []
    wrong += [high + 1] if high is not None else []
    for value in wrong:
        with pytest.raises(D3POError) as caught:
            validate(dataclasses.replace(cls(), **{item.name: value}))
        assert item.name in caught.value.what and str(value) in caught.value.what
        assert caught.value.do and "\n" not in str(caught.value)


@given(st.data(), st.sampled_from(list(CLASSES.values())))
def test_replace_round_trips(data, cls):
    changes = data.draw(some_settings(cls))
    made = replace(cls(), changes)
    assert dataclasses.asdict(made) == {**dataclasses.asdict(cls()), **changes}
    assert replace(cls(), dataclasses.asdict(made)) == made


@pytest.mark.parametrize("value", ["7", None, True, [7], 7.5])
def test_replace_refuses_another_type(value):
    with pytest.raises(D3POError, match=r"steps is .* type int"):
        replace(SampleSettings(), {"steps": value})


def test_replace_takes_a_whole_number_for_a_fraction():
    assert replace(SampleSettings(), {"eta": 1}).eta == 1.0
    assert isinstance(replace(SampleSettings(), {"eta": 1}).eta, float)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_check_refuses_what_is_no_number(value):
    with pytest.raises(D3POError, match="eta is"):
        replace(SampleSettings(), {"eta": value})


def test_replace_names_the_known_settings():
    with pytest.raises(D3POError, match=r"no setting called 'stepz'.*steps"):
        replace(SampleSettings(), {"stepz": 7})


@pytest.mark.parametrize("method", METHOD_DEFAULTS)
def test_a_beta_that_teaches_nothing_is_refused(method):
    settings = TrainSettings(method=method, beta=0.0)
    if METHOD_DEFAULTS[method].beta == 0 or method == "dpok":  # there it weighs a KL term
        assert validate(settings) == settings
    else:
        with pytest.raises(D3POError, match=f"With beta 0, {method} learns nothing"):
            validate(settings)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    for section, changes in PRESETS[name].items():
        replace(CLASSES[section](), changes)


def test_the_published_preset_is_the_papers():
    """Yang et al. 2023, arXiv 2311.13231, and config/base.py of its repository: beta 0.1, ratio clamped to 1 ± 0.1."""
    train = replace(TrainSettings(), PRESETS["published"]["train"])
    assert (train.level, train.beta, train.clip, train.guided_loss) == ("step", 0.1, 0.1, True)
    assert (train.judge, train.trained_steps) == (False, 0)
    assert (PRESETS["published"]["sample"]["window"], PRESETS["published"]["sample"]["start"]) == ("all", "same")
    assert PRESETS["published"]["lora"] == {"targets": "attention"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is read from Python 3.11 on, or with tomli")
@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_papers_settings_are_settings(path):
    config = read_config(path, CLASSES)
    for section, values in config.values.items():
        replace(CLASSES[section](), values)
    assert config.values["lora"]["rank"] > 0


def test_a_preset_imposes_what_is_d3pos_on_no_other_method():
    assert preset_values("published") == PRESETS["published"]
    for method in METHOD_DEFAULTS.keys() - {"d3po"}:
        found = preset_values("published", method)
        assert found["sample"] == PRESETS["published"]["sample"]
        assert found["train"] == {
            **{"guided_loss": True, "judge": False, "drift_limit": 0.0},
            **{"keep_prompt": 0.0, "trained_steps": 0, "epochs": 4, "batch": 4, "decay": False},
        }
        assert preset_values("taste", method) == {}


def test_picks_are_predicted_with_the_beta_of_the_pair_method_on_the_same_rows():
    betas = {method: prediction_beta(fill_in(TrainSettings(method=method))) for method in METHOD_DEFAULTS}
    pictures = ("d3po", "diffusion-dpo", "diffusion-kto", "diffusion-nft")
    assert betas == {**dict.fromkeys(("ddpo", "dpok"), 205), **dict.fromkeys(pictures, 2000)}
    assert prediction_beta(fill_in(TrainSettings(credit="step"))) == 205
    assert prediction_beta(fill_in(TrainSettings(beta=3.0))) == 3


@pytest.mark.parametrize("method", METHOD_DEFAULTS)
def test_what_was_left_empty_is_filled_in_and_nothing_else(method):
    own = METHOD_DEFAULTS[method]
    filled = fill_in(TrainSettings(method=method, clip=0.0))
    assert (filled.beta, filled.clip, filled.learning_rate) == (own.beta, 0.0, own.learning_rate)
    assert fill_in(filled) == filled and filled.epochs == TrainSettings().epochs


def test_stored_settings_of_other_versions_are_read():
    earlier = {"method": "ddpo", "beta": 0.0, "clip": 0.0, "learning_rate": 0.0, "epochs": 7}
    earlier |= {"gone": True, "cross_check": False, "patience": 0}
    as_it_was = {"judge": False, "trained_steps": 0, "keep_prompt": 0.0, "decay": False, "credit": "step"}
    assert from_stored(TrainSettings, earlier) == TrainSettings(method="ddpo", epochs=7, **as_it_was)
    published = {"level": "step", "epochs": 4, "batch": 4, "learning_rate": None, "cross_check": False}
    same = {**as_it_was, "level": "step", "epochs": 4, "batch": 4, "learning_rate": 1e-3}  # D3PO's own in 0.1.0
    assert from_stored(TrainSettings, published) == TrainSettings(**same)
    default = {"epochs": 4, "batch": 4, "drift_limit": 0.06, "learning_rate": None, "cross_check": True, "warmup": 2}
    assert from_stored(TrainSettings, default) == TrainSettings(warmup=2)
    chosen = {"method": "d3po", "beta": 0.0, "clip": 0.0, "learning_rate": 5e-4}  # the rest was the method's own
    assert from_stored(TrainSettings, chosen) == TrainSettings(learning_rate=5e-4, credit="step")
    later = {"method": "ddpo", "beta": None, "clip": 0.0, "learning_rate": 1e-4, "of_tomorrow": {"a": 1}}
    assert from_stored(TrainSettings, later) == TrainSettings(method="ddpo", clip=0.0, learning_rate=1e-4)
    filled = {**dataclasses.asdict(fill_in(TrainSettings(method="ddpo", clip=0.0))), FILLED: True}
    assert fill_in(from_stored(TrainSettings, filled)) == fill_in(TrainSettings(method="ddpo", clip=0.0))
    assert from_stored(SampleSettings, {}) == SampleSettings()
