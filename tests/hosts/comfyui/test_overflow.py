"""Networks and VAEs whose numbers overflow: the part and a way out are named, and no picture of them is kept."""

from __future__ import annotations

import pytest

from .graphs import node
from .host import Host, Refused
from .test_nodes import listed_taste, named

OPTIONS = {"network": "--bf16-unet or --fp32-unet", "VAE": "--bf16-vae or --fp32-vae"}
OVERFLOWED = "overflowed.safetensors"


@pytest.mark.parametrize("part", OPTIONS)
@pytest.mark.parametrize("later", [False, True], ids=["decoded by the sampler", "decoded later"])
def test_no_picture_is_kept_of_numbers_that_overflow(host: Host, part: str, later: bool) -> None:
    name = f"overflow {part} {later}"
    graph = named(name)
    if later:
        del graph["sampler"]["inputs"]["vae"]
        graph["decoded"] = node("VAEDecode", samples=["sampler", 2], vae=["load", 2])
        graph["collector"]["inputs"]["images"] = ["decoded", 0]
    host.run(graph, only=["collector"])
    assert listed_taste(host, name)["groups"] == 2
    if part == "network":
        graph["network"] = node("UNETLoader", unet_name=OVERFLOWED, weight_dtype="default")
        graph["model"]["inputs"]["model"] = ["network", 0]
    else:
        graph["vae"] = node("VAELoader", vae_name=OVERFLOWED)
        graph["decoded" if later else "sampler"]["inputs"]["vae"] = ["vae", 0]
    with pytest.raises(Refused) as refused:
        host.run(graph, only=["collector"])
    told = str(refused.value)
    assert f"The numbers of the model's {part} overflowed, and no picture came out." in told
    assert f"Start ComfyUI with {OPTIONS[part]}:" in told
    assert listed_taste(host, name)["groups"] == 2
