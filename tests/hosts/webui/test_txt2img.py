"""What a taste takes over from txt2img, and what it says it leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from d3po_core.errors import D3POError
from d3po_webui.flow_settings import FlowSettings
from d3po_webui.new_taste import note
from d3po_webui.txt2img import name_of, read

PAGE = {
    **{"prompt": "a lake", "negative": "", "steps": 20, "cfg_scale": 7, "width": 512, "height": 768},
    **{"sampler": "Euler a", "scheduler": "Automatic", "batch_count": 1, "batch_size": 1, "seed": -1},
    **{"variation": False, "styles": [], "script": "None", "on": [], "comments": True},
    **{"distilled_cfg_scale": 0, "preset": ""},
}
FLOW = {"preset": "flux", "sampler": "Euler", "scheduler": "Beta", "cfg_scale": 1, "distilled_cfg_scale": 3.5}


def sent(**changed: Any) -> Any:
    return read(json.dumps({**PAGE, **changed}), flow_models=True)


def test_settings_are_taken_over_and_nothing_is_left() -> None:
    found = sent(negative="blurry, dark", steps=30, cfg_scale=4.5)
    assert found.prompt == "a lake" and found.without_effect == ()
    assert found.settings == {
        **{"sample.negative": "blurry, dark", "sample.steps": 30, "sample.guidance_scale": 4.5},
        **{"sample.width": 512, "sample.height": 768, "sample.schedule": "model"},
    }


@pytest.mark.parametrize(
    ("sampler", "scheduler", "schedule"),
    [
        ("Euler a", "Karras", "karras"),
        ("DPM++ 2M", "Automatic", "karras"),
        ("DPM++ 2M", "Uniform", "model"),
        ("Euler", "Automatic", "model"),
    ],
)
def test_the_schedule_is_ours_of_the_same_name(sampler: str, scheduler: str, schedule: str) -> None:
    assert sent(sampler=sampler, scheduler=scheduler).settings["sample.schedule"] == schedule


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"on": ["Hires. fix", "Refiner"]}, ["Hires. fix", "Refiner"]),
        ({"script": "X/Y/Z plot"}, ["script X/Y/Z plot"]),
        ({"styles": ["noir"]}, ["style noir"]),
        ({"batch_count": 2}, ["batch count"]),
        ({"batch_size": 4}, ["batch size"]),
        ({"seed": 7, "variation": True}, ["seed", "seed variation"]),
        ({"sampler": "DPM++ 2M"}, ["sampler DPM++ 2M (a taste draws as Euler a)"]),
        ({"scheduler": "Beta"}, ["schedule type Beta"]),
        ({"prompt": "a lake <lora:fog:0.7>"}, ["<lora:fog:0.7>"]),
        (
            {"prompt": "a [cat:dog:0.5] AND a hill"},
            ["[cat:dog:0.5] (read as plain words)", "AND (read as plain words)"],
        ),
        ({"prompt": r"a [cat], a \[b:c\], (sand:1.2), ANDES"}, []),  # emphasis works; these are words
    ],
)
def test_what_is_on_and_has_no_effect_is_told(changed: dict[str, Any], left: list[str]) -> None:
    assert list(sent(**changed).without_effect) == left


def test_a_flow_models_preset_brings_its_slider_and_schedule() -> None:
    found = sent(**FLOW)
    assert found.flow == FlowSettings(3.5, "Beta") and found.without_effect == ()
    assert found.settings["sample.schedule"] == "model" and found.settings["sample.guidance_scale"] == 1
    automatic = sent(**FLOW | {"scheduler": "Automatic", "sampler": "DPM++ 2M"})
    assert automatic.flow.schedule == "Automatic" and automatic.settings["sample.schedule"] == "model"
    assert sent(**FLOW | {"preset": "sd"}).flow is None
    assert read(json.dumps({**PAGE, **FLOW, "distilled_cfg_scale": 30})).flow is None  # Forge's


def test_of_sdxls_shape_it_is_not_known_whether_the_schedule_has_an_effect() -> None:
    seldom = sent(**FLOW | {"preset": "xl"})
    assert seldom.flow == FlowSettings(3.5, "Beta")
    assert seldom.without_effect == ("schedule type Beta (but for flow models)",)


def test_a_sliders_range_is_the_hosts() -> None:
    with pytest.raises(D3POError, match=r"is 30\. Choose 0 for the model's own, or up to 24"):
        FlowSettings(30.0)


def test_the_prompt_comes_on_one_line_without_tags() -> None:
    assert sent(prompt="a lake,\n<lora:fog:0.7>\n(mist:1.2), <hypernet:x:1>,").prompt == "a lake, (mist:1.2)"


def test_comments_are_left_where_the_host_leaves_them() -> None:
    prompt = "a lake, # try (fog:1.2) <lora:fog:1>\n# a whole line\nmist"
    assert sent(prompt=prompt).prompt == "a lake, mist" and sent(prompt=prompt).without_effect == ()
    assert sent(negative="dark # why?").settings["sample.negative"] == "dark"
    assert sent(prompt="a lake #1", comments=False).prompt == "a lake #1"


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("masterpiece, best quality, (a lake:1.2) at dawn, mist", "a lake at dawn"),
        ("score_9, score_8_up, 1girl", "1girl"),
        ("8k, RAW photo", "My taste"),
        ("", "My taste"),
        ("a very old fisherman who mends his nets beside the harbour wall", "a very old fisherman who mends his nets"),
        (r"miku \(vocaloid\), stage", "miku vocaloid"),
    ],
)
def test_a_taste_is_named_by_the_first_words_that_say_something(prompt: str, name: str) -> None:
    assert name_of(prompt) == name


def test_the_note_shows_tags_as_text() -> None:
    assert "&lt;lora:fog:0.7&gt;" in note(sent(prompt="x <lora:fog:0.7>"))
