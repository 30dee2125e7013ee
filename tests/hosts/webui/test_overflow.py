"""A checkpoint of which the network, or the VAE, overflows: the part and a way out are named, no picture is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checkpoint import write
from .host import WebUI
from .test_page import until

SAMPLE = {"steps": 3, "candidates": 2, "width": 64, "height": 64, "guidance_scale": 2.0}
LAYERS = {"network": "diffusion_model.out.2.weight", "VAE": "decoder.conv_in.weight"}


@pytest.fixture(scope="module", params=LAYERS)
def part(request: pytest.FixtureRequest) -> str:
    """The part of the model that overflows."""
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(part: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of which a layer was too large for the half precision it was saved in."""
    return write(tmp_path_factory.mktemp("models"), "sd15", LAYERS[part])


def test_no_picture_is_kept_of_numbers_that_overflow(webui: WebUI, part: str) -> None:
    taste = webui.probe("begin", prompts=["a lake"], sample=SAMPLE)
    webui.ask(f"/d3po/taste/{taste}/draw", {"groups": 2})
    told = until(lambda: webui.state(taste)["problem"], 120)
    assert told["what"] == f"The numbers of the model's {part} overflowed, and no picture came out."
    assert told["do"].startswith("Start the web UI with --") and "float16 ends at 65,504" in told["do"]
    assert webui.state(taste)["groups"]["drawn"] == 0
    assert not any((webui.data / "d3po").rglob("*.png"))
    until(lambda: not webui.state(taste)["work"], 20)
