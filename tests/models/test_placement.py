"""Where a network's layers are, and that several processes take their own devices."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn

from d3po_core.errors import D3POError
from d3po_core.lora import attach
from d3po_core.models.placement import block_places, devices_of, place, spread
from d3po_core.processes import Processes
from d3po_core.settings import LoraSettings


def small_unet() -> nn.Module:
    return UNet2DConditionModel(
        **{"sample_size": 8, "block_out_channels": (32, 64), "cross_attention_dim": 16, "norm_num_groups": 8},
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def small_flux() -> nn.Module:
    return FluxTransformer2DModel(
        **{"num_layers": 3, "num_single_layers": 5, "attention_head_dim": 8, "num_attention_heads": 2},
        **{"joint_attention_dim": 8, "pooled_projection_dim": 8, "in_channels": 4, "guidance_embeds": True},
        axes_dims_rope=(2, 2, 4),
    )


def small_sd3() -> nn.Module:
    return SD3Transformer2DModel(
        **{"sample_size": 8, "num_layers": 6, "attention_head_dim": 8, "num_attention_heads": 2},
        **{"caption_projection_dim": 16, "joint_attention_dim": 8, "pooled_projection_dim": 8},
    )


UNET = {"sample": (2, 4, 8, 8), "timestep": (2,), "encoder_hidden_states": (2, 5, 16)}
SD3 = {
    **{"hidden_states": (2, 16, 8, 8), "encoder_hidden_states": (2, 5, 8), "pooled_projections": (2, 8)},
    "timestep": (2,),
}
FLUX = {
    **{"hidden_states": (2, 16, 4), "encoder_hidden_states": (2, 5, 8), "pooled_projections": (2, 8)},
    **{"timestep": (2,), "img_ids": (16, 3), "txt_ids": (5, 3), "guidance": (2,)},
}
NETWORKS = {"unet": (small_unet, UNET), "flux": (small_flux, FLUX), "sd3": (small_sd3, SD3)}


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_divided_by_weight_in_their_order(name: str) -> None:
    network = NETWORKS[name][0]()
    for devices in (["a"], ["a", "b"]):
        places = block_places(network, devices)
        assert list(dict.fromkeys(places.values())) == devices == sorted(set(places.values()))
        named = [parameter for each in places for parameter in network.get_submodule(each).parameters()]
        assert len(named) == len(list(network.parameters())) == len({id(parameter) for parameter in named})
    sizes = {device: 0 for device in devices}
    for each, device in places.items():
        sizes[device] += sum(parameter.numel() for parameter in network.get_submodule(each).parameters())
    largest = max(sum(p.numel() for p in network.get_submodule(each).parameters()) for each in places)
    assert abs(sizes["a"] - sizes["b"]) <= 2 * largest


@pytest.mark.parametrize(("name", "count"), [("unet", 2), ("flux", 3), ("sd3", 2)])
def test_no_layer_meets_a_tensor_of_another_card(name: str, count: int) -> None:
    """Fake tensors know their device and refuse to mix; a LoRA is on all layers. A new device needs a new process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, name, str(count)], capture_output=True, text=True, timeout=300
    )
    if "no python backend" in done.stdout:
        pytest.skip("this torch makes no devices in Python")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["card:0", "True", str(count)]


def forward_on_made_up_cards(name: str, count: int) -> None:
    """Print where the prediction of a network over several cards is, whether it has a graph, and the LoRA's cards."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils import backend_registration

    register = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if register is None:
        print("no python backend")
        return
    register("card")
    build, shapes = NETWORKS[name]
    devices = [f"card:{number}" for number in range(count)]
    with FakeTensorMode():
        network = build()
        for block, device in block_places(network, devices).items():
            for module in network.get_submodule(block).modules():
                for key, value in module._parameters.items():
                    if value is not None:  # accelerate cannot move a fake one
                        module._parameters[key] = nn.Parameter(torch.empty(value.shape, device=device))
        spread(network, devices)
        lora = attach(network, LoraSettings(targets="all"))
        inputs = {key: torch.randn(shape, device=devices[0]) for key, shape in shapes.items()}
        output = network(**inputs, return_dict=False)[0]
        print(output.device, output.requires_grad, len({parameter.device for parameter in lora.parameters()}))


def test_a_network_over_one_device_is_what_it_was() -> None:
    """Hooks change no digit, and a LoRA's gradient is that of the network as it was."""
    torch.manual_seed(0)
    network = small_unet()
    inputs = {key: torch.randn(shape) for key, shape in UNET.items()}
    gradients, outputs = [], []
    for _ in range(2):
        lora = attach(network, LoraSettings(targets="all"), kind="hooks")
        output = network(**inputs, return_dict=False)[0]
        output.square().mean().backward()
        gradients.append([parameter.grad for parameter in lora.parameters()])
        outputs.append(output.detach())
        lora.remove()
        if len(outputs) == 1:
            spread(network, ["cpu"])
    assert torch.equal(*outputs) and hasattr(network, "hf_device_map")
    assert all(torch.equal(*each) for each in zip(*gradients, strict=True) if each[0] is not None)


def test_more_cards_than_blocks_are_refused() -> None:
    with pytest.raises(D3POError, match="cannot be divided among 40 cards"):
        spread(small_unet(), [f"cuda:{number}" for number in range(40)])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("cuda:77", "no device 'cuda:77'"),
        ("cpu,cuda:77", "no device 'cuda:77'"),
        ("cpu,", "no device ''"),
        ("cpu,cpu:0", "shared by graphics cards alone"),
    ],
)
def test_devices_that_are_not_there(names: str, sentence: str) -> None:
    with pytest.raises(D3POError, match=sentence):
        devices_of(names)


def test_usual_devices() -> None:
    assert len(devices_of(None)) == 1 and devices_of("cpu") == ["cpu"] == devices_of("cpu, cpu")


def test_one_device_is_the_pipelines() -> None:
    from d3po_core.models import load_model

    model = load_model("garden", device="cpu")
    assert place(model.pipeline, ["cpu"]) is model.pipeline and model.denoiser.device.type == "cpu"


@pytest.mark.parametrize(
    ("cards", "asked", "processes", "expected"),
    [
        (4, None, 2, ["cuda:0", "cuda:1"]),
        (2, None, 3, ["cuda:0", "cuda:1", "cuda:0"]),
        (0, None, 2, [None, None]),
        (0, "cpu", 2, ["cpu", "cpu"]),
        (4, "cuda:0,cuda:1,cuda:2,cuda:3", 2, ["cuda:0,cuda:1", "cuda:2,cuda:3"]),
        (4, "cuda:1,cuda:3", 2, ["cuda:1", "cuda:3"]),
        (4, "cuda:1", 2, ["cuda:1", "cuda:1"]),
        (2, "cuda:0,cuda:1", 2, ["cuda:0", "cuda:1"]),
        (4, "cuda:0,cuda:1", 1, ["cuda:0,cuda:1"]),
        (4, None, 1, [None]),
    ],
)
def test_each_process_takes_its_own_devices(
    monkeypatch: pytest.MonkeyPatch, cards: int, asked: str | None, processes: int, expected: list[str | None]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    found = [Processes(rank, processes, rank, processes).device(asked) for rank in range(processes)]
    assert found == expected


def test_devices_that_cannot_be_divided() -> None:
    with pytest.raises(D3POError, match="3 devices cannot be divided equally among 2 processes"):
        Processes(0, 2, 0, 2).device("cuda:0,cuda:1,cuda:2")


def test_what_else_is_on_the_last_card_counts() -> None:
    """Of 100 bytes a block, 6 blocks, with 0, 200, 400 and 900 bytes of text encoders on the second card."""
    network = nn.Sequential(*(nn.Linear(25, 1, bias=False) for _ in range(6)))
    for others, first in ((0, 3), (200, 4), (400, 5), (900, 6)):
        places = list(block_places(network, ["a", "b"], others).values())
        assert places == ["a"] * first + ["b"] * (6 - first)
    assert list(block_places(network, ["a", "b", "c"], 900).values()) == ["a"] * 3 + ["b"] * 3


if __name__ == "__main__":
    forward_on_made_up_cards(sys.argv[1], int(sys.argv[2]))
