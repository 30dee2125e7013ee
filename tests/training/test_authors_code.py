"""The published loss against tensors that the D3PO authors' own code produced.

They come from `ddim_step_with_logprob` and the loss of `scripts/train.py` of yk7333/D3PO at 40d3175, with diffusers
0.17.1 and torch 2.13 on a processor, float32: 20 steps, eta 1, guidance 5, beta 0.1, clamp 0.1, a small UNet with a
LoRA of rank 4 on its attentions. Candidate 0 won. `data/authors` has, for each of two cases, the latents before and
after the step, the guided noise predictions of policy and reference, the log-probabilities and the loss. In `s10` no
ratio meets the clamp, in `s18_oneclip` one does.

For `s10` there are the gradients of the LoRA on the last attentions, too. What comes before these in the UNet is in the
data as activations, what comes after as weights, so that they are computed anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn

from d3po_core.diffusion.denoiser import Conditioning, Prediction
from d3po_core.diffusion.steps import LinearSteps, ancestral
from d3po_core.lora.attachment import HookLora
from d3po_core.lora.weights import LayerWeights
from d3po_core.picks import Pair
from d3po_core.settings import PUBLISHED, FilledTrainSettings, TrainSettings, fill_in, replace
from d3po_core.training.methods import METHODS
from d3po_core.training.passes import BatchLimits, backward
from d3po_core.training.rows import Rows, TrainingGroup, group_rows, predict

DATA = Path(__file__).parent.parent / "data" / "authors"
GUIDANCE = 5.0
CLOSE = 2e-5
"""Of the largest value."""


@dataclass(frozen=True)
class Case:
    """One of the authors' cases, in the space of this project's steps: latents divided by sqrt(alpha)."""

    name: str

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return read(self.name)

    @cached_property
    def facts(self) -> dict[str, str]:
        with safe_open(DATA / f"{self.name}.safetensors", "pt") as file:
            return dict(file.metadata())

    @property
    def alphas(self) -> tuple[float, float]:
        """Cumulative products of alpha before and after the step."""
        return float(self.facts["alpha"]), float(self.facts["alpha_next"])

    @property
    def steps(self) -> LinearSteps:
        alphas = torch.tensor(self.alphas, dtype=torch.float64)
        return ancestral(((1 - alphas) / alphas).sqrt(), torch.ones(1))

    def latents(self, candidate: int) -> Tensor:
        """Before and after the step, (2, 4, 16, 16)."""
        names = (f"latents_{candidate}", f"next_latents_{candidate}")
        return torch.cat([self.tensors[n] / a**0.5 for n, a in zip(names, self.alphas, strict=True)])

    def denoised(self, policy: str, candidate: int) -> Tensor:
        """The guided prediction of "policy" or "ref", (1, 4, 16, 16)."""
        return self.latents(candidate)[:1] - float(self.steps.sigma[0]) * self.tensors[f"{policy}_{candidate}_guided"]

    @property
    def group(self) -> TrainingGroup:
        """As recorded by the reference, one step of two candidates."""
        guided = torch.stack([self.denoised("ref", c) for c in (0, 1)])
        x = torch.stack([self.latents(c) for c in (0, 1)])
        prompt = {"prompt_embeds": torch.zeros(1)}
        pair = [Pair(0, 1, 1.0)]
        return TrainingGroup("g", pair, [1.0, 0.0], self.steps, x, guided, guided, x[:, -1], "base", prompt, GUIDANCE)


def read(name: str) -> dict[str, Tensor]:
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(params=["s10", "s18_oneclip"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def published() -> FilledTrainSettings:
    return fill_in(replace(TrainSettings(), PUBLISHED["train"]))


def test_log_ratios_and_loss_are_the_authors(case: Case) -> None:
    """The authors' ratios are differences of log-probabilities near -0.5 in float32, which limits how near they are."""
    group, settings = case.group, published()
    rows = group_rows(group, group.guided, True, torch.device("cpu"))
    values = METHODS["d3po"].values(torch.cat([case.denoised("policy", c) for c in (0, 1)]), rows, settings)
    stored = case.tensors
    expected = torch.stack([stored[f"logp_{c}"] - stored[f"logp_ref_{c}"] for c in (0, 1)])
    largest = max(float(stored[f"logp_{c}"].abs()) for c in (0, 1))
    torch.testing.assert_close(values, expected, rtol=0, atol=CLOSE * largest)
    loss = METHODS["d3po"].loss(values.unflatten(0, (2, 1)), group, settings, 0.0)
    torch.testing.assert_close(loss, stored["loss"][0], rtol=CLOSE, atol=0)
    torch.testing.assert_close(loss.double(), stored["loss64"][0], rtol=CLOSE, atol=0)


def test_the_clamp_bites_in_one_case_only() -> None:
    clamped = []
    for name in ("s10", "s18_oneclip"):
        stored = Case(name).tensors
        ratios = [float((stored[f"logp_{c}"] - stored[f"logp_ref_{c}"]).exp()) for c in (0, 1)]
        clamped.append(sum(abs(ratio - 1) > published().clip for ratio in ratios))
    assert clamped == [0, 1]


class Tail(nn.Module):
    """The last attentions of the authors' UNet, and what follows them."""

    def __init__(self, config: dict[str, object], stored: dict[str, Tensor]) -> None:
        super().__init__()
        whole = UNet2DConditionModel.from_config(config)
        missing, unexpected = whole.load_state_dict(read("tail"), strict=False)
        assert not unexpected and not any(name.startswith(("conv_out", "up_blocks.1")) for name in missing)
        self.attentions, self.upsampler = whole.up_blocks[0].attentions[1], whole.up_blocks[0].upsamplers[0]
        self.block, self.norm, self.out = whole.up_blocks[1], whole.conv_norm_out, whole.conv_out
        self.stored = stored

    def forward(self, candidate: int) -> Tensor:
        """Predict noise for a candidate: without and with the prompt, (2, 4, 16, 16)."""
        stored = self.stored
        hidden = self.attentions(stored[f"hidden_{candidate}"], encoder_hidden_states=stored["embeds"]).sample
        skips = tuple(stored[f"skip{i}_{candidate}"] for i in (0, 1))
        hidden = self.block(self.upsampler(hidden), skips, stored["temb"].expand(2, -1))
        return self.out(nn.functional.silu(self.norm(hidden)))


class TailDenoiser:
    """`Tail` as a denoiser of the case's two candidates."""

    def __init__(self, case: Case) -> None:
        self.module = Tail(json.loads(case.facts["config"]), case.tensors)
        self.case = case

    def __call__(
        self, x: Tensor, sigma: Tensor, conditioning: Conditioning, guidance_scale: float, guided: bool = True
    ) -> Prediction:
        unconditional, conditional = torch.stack([self.module(candidate) for candidate in (0, 1)], 1)
        noise = unconditional + guidance_scale * (conditional - unconditional)
        return Prediction(x, x - float(sigma[0]) * noise)


def test_gradients_of_the_lora_are_the_authors() -> None:
    case, settings = Case("s10"), published()
    denoiser, stored = TailDenoiser(case), case.tensors
    paths = sorted({name[len("lora.") : -len(".A")] for name in stored if name.startswith("lora.")})
    modules = [f"attentions.{path}.0" if path.endswith("to_out") else f"attentions.{path}" for path in paths]
    values = [LayerWeights(stored[f"lora.{path}.A"], stored[f"lora.{path}.B"], alpha=4.0) for path in paths]
    weights = dict(zip(modules, values, strict=True))
    lora = HookLora(denoiser.module, weights, {})
    rows = group_rows(case.group, case.group.guided, True, torch.device("cpu"))

    def values_of(part: Rows) -> Tensor:
        return METHODS["d3po"].values(predict(denoiser, part), part, settings)  # type: ignore[arg-type]

    def loss_of(values: Tensor) -> Tensor:
        return METHODS["d3po"].loss(values.unflatten(0, (2, 1)), case.group, settings, 0.0)

    loss, _ = backward(values_of, rows, loss_of, BatchLimits(2, 2))
    torch.testing.assert_close(loss, stored["loss"][0], rtol=CLOSE, atol=0)
    expected = [stored[f"grad.{path}.{role}"] for path in paths for role in "AB"]
    gradients = [p.grad for p in lora.parameters()]
    assert len(paths) == 8 and len(gradients) == 16
    largest = max(float(each.abs().max()) for each in expected)
    assert largest > 0
    for gradient, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, theirs, rtol=0, atol=CLOSE * largest)
