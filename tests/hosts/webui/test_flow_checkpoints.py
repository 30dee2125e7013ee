"""Whether the random flow models are any use to other tests: Forge Neo alone draws with each, without the extension."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from .host import WebUI, apart


@pytest.fixture(scope="module")
def checkpoint(flow_model: Path) -> Path:
    return flow_model


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_pictures_differ_by_seed_and_prompt(webui: WebUI, scale: float) -> None:
    more = {"steps": 4, "scheduler": "Simple", "cfg_scale": scale, "distilled_cfg_scale": 3.0}
    picture = webui.draw("a lake", **more)
    assert picture.mean() > 20 and picture.std() > 10
    assert np.array_equal(picture, webui.draw("a lake", **more))
    assert apart(picture, webui.draw("something else", **more)) > 20
    assert apart(picture, webui.draw("a lake", **{**more, "seed": 4})) > 20


def test_every_tensor_has_its_place(webui: WebUI) -> None:
    webui.draw("a lake", steps=1)
    lists = re.findall(r" (?:Missing|Unexpected): (\[.*\])", webui.log.read_text(errors="replace"))
    names = [name for each in lists for name in ast.literal_eval(each)]
    assert not [name for name in names if not name.startswith("visual.")]  # what sees pictures is left out
