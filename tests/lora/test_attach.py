"""Both attachments: the same numbers, exactly off, gone without a trace."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from d3po_core.errors import D3POError
from d3po_core.lora import LayerWeights, attach, save_lora
from d3po_core.settings import LoraSettings
from tests.lora_networks import (
    NETWORKS,
    active_adapters,
    delta,
    fill,
    filled,
    network_of,
    predict,
    relative,
    snapshot,
    tiny_sd1,
    tiny_sdxl,
    to_load,
)

KINDS = ("peft", "hooks")
SMALL = LoraSettings(rank=2, alpha=3.0)


@pytest.mark.parametrize("family", NETWORKS)
def test_both_attachments_give_equal_outputs_and_gradients(family: str) -> None:
    outputs, gradients = [], []
    for kind in KINDS:
        network = NETWORKS[family]()
        lora = attach(network, LoraSettings(rank=2, alpha=3.0, targets="all"), kind=kind, seed=7)
        fill(lora)
        output = predict(network)
        output.square().sum().backward()
        outputs.append(output)
        gradients.append([p.grad for p in lora.parameters()])
        assert all(p.dtype == torch.float32 and p.requires_grad for p in lora.parameters())
        assert sum(p.requires_grad for p in network.parameters()) in (0, len(lora.parameters()))
    assert relative(outputs[1], outputs[0]) < 1e-6
    assert len(gradients[0]) == len(gradients[1]) > 40
    for a, b in zip(*gradients, strict=True):
        assert a is not None and b is not None
        assert relative(b, a) < 1e-5 or float(a.norm()) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_adds_alpha_over_rank_up_down(kind: str) -> None:
    """Against the weights added by hand to an untouched network, convolutions included."""
    network, plain = tiny_sd1(), tiny_sd1()
    lora = attach(network, LoraSettings(rank=2, alpha=3.0, targets="all"), kind=kind)
    fill(lora)
    for path, w in lora.weights().items():
        weight = plain.get_submodule(path).weight
        weight.data += delta(w).reshape(weight.shape).float()
    with torch.no_grad():
        assert relative(predict(network), predict(plain)) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_off_and_removed_are_bit_identical_and_leave_no_trace(kind: str, dtype: torch.dtype) -> None:
    network = tiny_sd1().to(dtype)
    frozen = next(network.parameters())
    frozen.requires_grad_(False)
    untouched, before = predict(network, dtype), snapshot(network)
    lora = attach(network, LoraSettings(rank=2, alpha=2.0, targets="all"), kind=kind)
    if kind == "hooks":
        assert list(network.state_dict()) == before[2]  # type: ignore[index]
    assert predict(network, dtype).equal(untouched), "a fresh LoRA changes nothing"
    fill(lora)
    assert not predict(network, dtype).equal(untouched)
    with lora.off():
        assert predict(network, dtype).equal(untouched)
        with lora.scale(2.0):
            assert predict(network, dtype).equal(untouched)
    learnt = lora.weights()
    lora.remove()
    assert predict(network, dtype).equal(untouched)
    assert snapshot(network) == before
    assert learnt["mid_block.attentions.0.proj_in"].down.shape == (2, 16, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_contexts_nest_and_survive_exceptions(kind: str) -> None:
    network = tiny_sd1()
    untouched = predict(network)
    reference = filled(attached_and_removed(network), seed=5)
    lora = attach(network, SMALL, kind=kind, reference=reference)
    fill(lora)
    with torch.no_grad():
        on = predict(network)
        with lora.reference():
            last_round = predict(network)
            with lora.off():
                assert predict(network).equal(untouched)
            assert predict(network).equal(last_round)
        with pytest.raises(RuntimeError), lora.off(), lora.reference():
            raise RuntimeError
        assert predict(network).equal(on)
        with lora.scale(0.0):
            assert relative(predict(network), untouched) < 1e-6
        with lora.scale(0.5), lora.reference():
            assert predict(network).equal(last_round), "strength is the trained adapter's alone"
    assert len({tuple(t.flatten()[:4].tolist()) for t in (untouched, on, last_round)}) == 3
    lora.remove()
    again = attach(network, SMALL, kind=kind, start=reference)
    with torch.no_grad():
        assert relative(predict(network), last_round) < 1e-6, "the reference is that LoRA, as trained"
    again.remove()


def attached_and_removed(network: nn.Module, settings: LoraSettings = SMALL) -> dict[str, LayerWeights]:
    lora = attach(network, settings, kind="hooks")
    lora.remove()
    return lora.weights()


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_reference_the_base_is_the_reference(kind: str) -> None:
    network = tiny_sd1()
    untouched = predict(network)
    lora = attach(network, SMALL, kind=kind)
    fill(lora)
    with lora.reference():
        assert predict(network).equal(untouched)


@pytest.mark.parametrize("kind", KINDS)
def test_half_strength_is_half_the_change_of_each_layer(kind: str) -> None:
    network = tiny_sd1()
    lora = attach(network, SMALL, kind=kind)
    fill(lora)
    with torch.no_grad():
        with lora.scale(0.5):
            half = predict(network)
        lora.load({path: LayerWeights(w.down, w.up / 2, w.alpha) for path, w in lora.weights().items()})
        assert relative(half, predict(network)) < 1e-6


def test_the_start_is_the_same_for_both_and_leaves_the_global_generator_alone() -> None:
    network = tiny_sd1()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    starts = []
    for kind in KINDS:
        lora = attach(network, SMALL, kind=kind, seed=3)
        starts.append(lora.weights())
        lora.remove()
    assert torch.get_rng_state().equal(state)
    other = attach(network, SMALL, kind="hooks", seed=4).weights()
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    assert list(starts[0]) == list(starts[1]) and starts[0][path].down.equal(starts[1][path].down)
    assert not starts[0][path].down.equal(other[path].down)
    bound = starts[0][path].down.abs().max()
    assert 0.5 / 8**0.5 < float(bound) <= 1 / 8**0.5 and not starts[0][path].up.any()


def test_going_on_keeps_effect_and_rank_and_takes_the_settings_pace() -> None:
    network = tiny_sd1()
    start = filled(attached_and_removed(network, LoraSettings(rank=4, alpha=1.0, targets="attention")))
    lora = attach(network, LoraSettings(rank=2, alpha=6.0, targets="attention+feedforward"), kind="hooks", start=start)
    weights = lora.weights()
    path = next(iter(start))
    assert weights[path].rank == 4 and weights[path].alpha == 12.0
    assert relative(delta(weights[path]), delta(start[path])) < 1e-6
    fresh = weights["mid_block.attentions.0.proj_in"]
    assert fresh.rank == 2 and fresh.alpha == 6.0 and not fresh.up.any()
    assert len(weights) > len(start)


@pytest.mark.parametrize("mixed", [False, True])
def test_peft_takes_ranks_and_alphas_that_differ_between_layers(mixed: bool) -> None:
    network, outputs = tiny_sd1(), []
    start = filled(attached_and_removed(network, LoraSettings(rank=4, alpha=1.0)))
    settings = LoraSettings(rank=2, alpha=6.0, targets="attention+feedforward" if mixed else "attention")
    for kind in KINDS:
        lora = attach(network, settings, kind=kind, start=start)
        fill(lora)
        outputs.append(predict(network))
        lora.remove()
    assert relative(outputs[0], outputs[1]) < 1e-6


def test_another_loaded_lora_stays_on_underneath_and_intact(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """PEFT's own switches would have turned it off, or set its parameters to be trained."""
    network = tiny_sd1()
    other = filled(attached_and_removed(network, LoraSettings(rank=3, alpha=3.0)), seed=9)
    other = {path: w for path, w in other.items() if "up_blocks" not in path}
    file = save_lora(tmp_path / "other.safetensors", other, network)
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    tensors, alphas = Loader.lora_state_dict(**to_load(file))
    Loader.load_lora_into_unet(tensors, alphas, network, adapter_name="other")
    network.set_adapters(["other"], [0.7])
    underneath, before = predict(network), snapshot(network)
    reference = filled(attached_and_removed(network), seed=4)
    outputs = []
    for kind in KINDS:
        lora = attach(network, SMALL, kind=kind, reference=reference)
        fill(lora)
        outputs.append(predict(network))
        assert all(not p.requires_grad for n, p in network.named_parameters() if ".other." in n)
        for context in (lora.off, lora.reference):
            with context():
                assert predict(network).equal(underneath) == (context == lora.off)
        lora.remove()
        assert predict(network).equal(underneath)
        assert snapshot(network) == before
        assert active_adapters(network) == {"other"} and list(network.peft_config) == ["other"]
    assert relative(outputs[0], outputs[1]) < 1e-6
    network.disable_lora()
    plain = predict(network)
    lora = attach(network, SMALL, kind="peft")
    fill(lora)
    assert not predict(network).equal(plain)
    with lora.off():
        assert predict(network).equal(plain), "an adapter that was off stays off"
    lora.remove()
    assert predict(network).equal(plain)
    network.enable_lora()
    network.fuse_lora()
    with pytest.raises(D3POError, match="fused"):
        attach(network, SMALL, kind="peft")


def test_two_trainings_on_one_network_are_refused() -> None:
    network = tiny_sd1()
    lora = attach(network, SMALL, kind="peft")
    with pytest.raises(D3POError, match="already"):
        attach(network, SMALL, kind="peft")
    lora.remove()


def test_a_failure_while_attaching_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    network = tiny_sd1()
    untouched, before = predict(network), snapshot(network)
    inject = peft.inject_adapter_in_model

    def fail_at_the_reference(config: object, module: nn.Module, name: str, **options: object) -> None:
        inject(config, module, name, **options)
        if name == "d3po_reference":
            raise MemoryError

    monkeypatch.setattr(peft, "inject_adapter_in_model", fail_at_the_reference)
    with pytest.raises(MemoryError):
        attach(network, SMALL, kind="peft", reference=attached_and_removed(network))
    assert snapshot(network) == before and predict(network).equal(untouched)


class Fp8Linear(nn.Linear):
    """As hosts store weights: fp8, cast when used."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype), None)


class OwnLinear(nn.Module):
    """A host's linear layer that is no `nn.Linear` and has no weight yet."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features, self.weight = 8, 6, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., :6] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_fp8_storage(kind: str) -> None:
    fp8 = Fp8Linear(8, 6, bias=False)
    fp8.weight = nn.Parameter(fp8.weight.to(torch.float8_e4m3fn), requires_grad=False)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    base = fp8(x)
    network = network_of({"a.attn1.to_q": fp8})
    lora = attach(network, SMALL, kind=kind)
    fill(lora)
    expected = base.double() + x.double() @ delta(lora.weights()["a.attn1.to_q"]).T
    assert relative(network.get_submodule("a.attn1.to_q")(x).double(), expected) < 1e-2
    lora.remove()
    assert network.get_submodule("a.attn1.to_q") is fp8 and fp8(x).equal(base)


def test_hooks_on_a_hosts_layers() -> None:
    fp8 = Fp8Linear(8, 6, bias=False)
    fp8.weight = nn.Parameter(fp8.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with torch.inference_mode():
        fp16 = nn.Linear(8, 6, dtype=torch.float16).requires_grad_(False)
    network = network_of({"a.attn1.to_q": fp8, "a.attn1.to_k": fp16, "a.attn1.to_v": OwnLinear()})
    lora = attach(network, SMALL, kind="hooks")
    fill(lora)
    for name, dtype in (("to_q", torch.bfloat16), ("to_k", torch.float16), ("to_v", torch.bfloat16)):
        layer = network.get_submodule(f"a.attn1.{name}")
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
        with lora.off():
            base = layer(x)
        y = layer(x)
        expected = base.double() + x.double() @ delta(lora.weights()[f"a.attn1.{name}"]).T
        assert y.dtype == dtype and relative(y.double(), expected) < 1e-2
        y.float().sum().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in lora.parameters())
    lora.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_is_followed(kind: str) -> None:
    network = tiny_sd1()
    lora = attach(network, SMALL, kind=kind)
    fill(lora)
    exact = predict(network)
    with torch.autocast("cpu", torch.bfloat16):
        output = predict(network)
    output.float().sum().backward()
    assert 1e-5 < relative(output.float(), exact) < 3e-2
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in lora.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_works(kind: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = tiny_sdxl().train()
        if checkpointing:
            network.enable_gradient_checkpointing()
        lora = attach(network, SMALL, kind=kind)
        fill(lora)
        predict(network).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in lora.parameters() if p.grad is not None]))
    assert relative(gradients[1], gradients[0]) < 1e-5


def test_targets() -> None:
    """Counts of kohya's trainer: "create LoRA for U-Net: 192 modules" for SD1.5, 722 for SDXL (attention, feed-forward
    and projections)."""
    from diffusers import UNet2DConditionModel

    from d3po_core.lora.targets import find_targets

    down, up = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    with torch.device("meta"):
        sd1 = UNet2DConditionModel(down_block_types=down, up_block_types=up, cross_attention_dim=768)
        xl = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", *down[:2]),
            up_block_types=(*up[1:3], "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            use_linear_projection=True,
        )
    assert [len(find_targets(sd1, targets)) for targets in ("attention", "attention+feedforward")] == [128, 192]
    assert [len(find_targets(xl, targets)) for targets in ("attention", "attention+feedforward")] == [560, 722]
    resnets = set(find_targets(sd1, "all")) - set(find_targets(sd1, "attention+feedforward"))
    assert len(resnets) == 22 * 2 + 14 and all(isinstance(sd1.get_submodule(path), nn.Conv2d) for path in resnets)


def test_errors() -> None:
    network = tiny_sd1()
    with pytest.raises(D3POError, match="No layer"):
        attach(nn.Sequential(nn.Linear(2, 2)), SMALL, kind="hooks")
    with pytest.raises(D3POError, match="rank is 0"):
        attach(network, LoraSettings(rank=0), kind="hooks")
    with pytest.raises(D3POError, match="not a way"):
        attach(network, SMALL, kind="glue")
    weights = attached_and_removed(network)
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    wide = LayerWeights(torch.zeros(2, 9), torch.zeros(16, 2), 2.0)
    with pytest.raises(D3POError, match="another base model"):
        attach(network, SMALL, kind="hooks", start={path: wide})
    with pytest.raises(D3POError, match="do not exist"):
        attach(network, SMALL, kind="hooks", reference={"nowhere": wide})
    lora = attach(network, SMALL, kind="hooks")
    with pytest.raises(D3POError, match="layers"):
        lora.load({path: weights[path]})
    with pytest.raises(D3POError, match="rank"):
        lora.load(attached_and_removed(network, LoraSettings(rank=3, alpha=3.0)))
    lora.remove()


def test_hooks_need_neither_peft_nor_diffusers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    program = """
import sys
sys.modules["peft"] = sys.modules["diffusers"] = sys.modules["transformers"] = None
import torch
from tests.lora_networks import network_of
from d3po_core.errors import D3POError
from d3po_core.lora import attach, import_lora, save_lora
from d3po_core.settings import LoraSettings
network = network_of({"input_blocks.1.0.in_layers.2": torch.nn.Conv2d(4, 4, 3, padding=1),
                      "input_blocks.1.1.transformer_blocks.0.attn1.to_q": torch.nn.Linear(4, 4)})
lora = attach(network, LoraSettings(), kind="hooks")
weights = lora.weights()
lora.remove()
assert import_lora(save_lora(sys.argv[1], weights, network), network).keys() == weights.keys()
try:
    attach(network, LoraSettings(), kind="peft")
except D3POError as error:
    assert "peft is missing" in str(error)
else:
    raise AssertionError
"""
    path = [entry for entry in sys.path if entry]
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.safetensors")],
        check=True,
        env={"PYTHONPATH": ":".join(path), "OMP_NUM_THREADS": "1"},
    )


def test_weights_made_for_inference_are_as_they_were_afterwards() -> None:
    with torch.inference_mode():  # as some hosts load them: asking for gradients, which they cannot have
        network = tiny_sd1()
    lora = attach(network, SMALL, kind="hooks")
    with torch.no_grad():
        predict(network)
    lora.remove()
    assert all(p.requires_grad and p.is_inference() for p in network.parameters())
