"""The host's CLIP vision as features: `python inside_clip.py MODELS`.

A tiny random one: its features beside the host's own, their gradient beside differences, and a reward fitted on them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from inside import report

# isort: split
import comfy.clip_vision
import numpy as np
import torch
from pack.d3po_core.picks import Pick
from pack.d3po_core.rewards.description import note_features
from pack.d3po_core.rewards.judge import fit_judge, own_judge
from pack.d3po_core.run import Run
from pack.d3po_core.run.run import to_image
from pack.nodes.host.clip_vision import HostClip, SeenByClip
from PIL import Image
from torch import Tensor

SIDE, FAR = 32, 1e-3
SHAPE = {
    "model_type": "clip_vision_model",
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": SIDE, "patch_size": 8, "num_channels": 3, "hidden_act": "quick_gelu", "projection_dim": 16},
}


def random_vision() -> Any:
    """As the host's loader would give it."""
    vision = comfy.clip_vision.ClipVisionModel(SHAPE)
    rng = torch.Generator().manual_seed(0)
    values = {
        name: 0.3 * torch.randn(v.shape, generator=rng) for name, v in vision.get_sd().items() if v.is_floating_point()
    }
    vision.load_sd({**vision.get_sd(), **values})
    return vision


def off(seen: HostClip, vision: Any, height: int, width: int) -> float:
    """Largest difference from the host's own embedding of a smooth picture, over the embedding's size."""
    place = torch.linspace(0, 1, height)[:, None, None] * torch.tensor([0.9, 0.2, 0.5])
    picture = ((place + torch.linspace(0, 0.5, width)[:, None]) / 1.5 * 255).round()[None] / 255
    expected = vision.encode_image(picture)["image_embeds"]
    got = seen(picture.movedim(-1, 1).clone())
    return float((got - expected).abs().max() / expected.abs().max())


def slope(seen: HostClip) -> float:
    """The rise of a sum of features along its gradient in the picture, over that gradient's length."""
    picture = torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.linspace(-1, 1, 16)

    def total(value: Tensor) -> Tensor:
        return (seen(value) @ weights).double().sum()

    (gradient,) = torch.autograd.grad(total(picture), picture)
    way = gradient / gradient.norm()
    with torch.no_grad():
        rise = total(picture + FAR * way) - total(picture - FAR * way)
    return float(rise / (2 * FAR) / gradient.norm())


def picked(folder: Path) -> Run:
    """24 groups of three tints, the warmest picked."""
    run = Run.create(folder, model={}, settings={})
    rng = torch.Generator().manual_seed(2)
    for number in range(24):
        tints = torch.rand(3, 3, 1, 1, generator=rng)
        images = (0.6 * tints + 0.4 * torch.rand(3, 3, SIDE, SIDE, generator=rng)).clamp(0, 1)
        group = run.groups.add(
            **{"prompt_id": run.prompts.add("a tint"), "number": number, "seed": 0, "candidates": 3, "policy": "base"},
            **{"round": 1, "settings": {}, "held_out": False, "tensors": {}},
            images=[to_image(image) for image in images],
        )
        run.picks.add(group, Pick("favourite", (int((tints[:, 0] - tints[:, 2]).argmax()),)))
    return run


def read(run: Run, group_id: str, number: int) -> Any:
    """A picture from its file, (H, W, 3) in [0, 1]."""
    return np.asarray(Image.open(run.groups.image_path(group_id, number)).convert("RGB"), dtype=np.float32) / 255


def measured() -> dict[str, Any]:
    with torch.inference_mode():  # as nodes are run
        vision = random_vision()
        before = {name: value.clone() for name, value in vision.get_sd().items()}
        seen = HostClip(vision)
        measures: dict[str, Any] = {f"{h}x{w}": off(seen, vision, h, w) for h, w in ((SIDE, SIDE), (80, 48), (24, 40))}
        with tempfile.TemporaryDirectory() as folder:
            run = picked(Path(folder) / "run")
            fitted = fit_judge(run, seen)
            noted = SeenByClip(vision)
            note_features(run, noted)
            judge = own_judge(run, [noted.name])
            group = run.groups.select()[0]
            pictures = torch.stack([torch.from_numpy(read(run, group.id, number)) for number in range(3)])
            expected = vision.encode_image(pictures)["image_embeds"]
            difference = (run.groups.features(group.id)[noted.name] - expected).abs().max() / expected.abs().max()
            run.close()
        measures["noted"], measures["sees"] = float(difference), judge.facts.features == f"statistics+{noted.name}"
        measures["same name"] = SeenByClip(vision).name == noted.name
        reward = fitted.reward()
        measures["accuracy"], measures["groups"] = fitted.facts.accuracy, fitted.facts.groups
    measures["slope"] = slope(seen)
    picture = torch.full((1, 3, 40, 40), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(reward(picture, [""]).sum(), picture)
    measures["warmer"] = float((gradient[:, 0] - gradient[:, 2]).sum())
    measures["unharmed"] = all(torch.equal(value, before[name]) for name, value in vision.get_sd().items())
    return measures


report(measured())
