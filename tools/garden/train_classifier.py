"""Stage judge: the classifier, trained on renderings with blur, noise and shifts of tone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from d3po_core.embedded import ATTRIBUTES
from d3po_core.embedded.classifier import GardenClassifier
from tools.garden.pictures import LEAN_STD, SIZE_STD, Scene
from tools.garden.training_tools import Average, TimeBudget, as_tensor, shuffled


def targets_of(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Return the targets of B scenes, (B,) each: class numbers, and size and lean with mean 0 and spread 1."""
    out = {n: torch.tensor([values.index(getattr(s, n)) for s in scenes]) for n, values in ATTRIBUTES.items()}
    out["size"] = torch.tensor([(s.size - 0.5) / SIZE_STD for s in scenes], dtype=torch.float32)
    out["lean"] = torch.tensor([s.lean / LEAN_STD for s in scenes], dtype=torch.float32)
    return out


def augment(images: torch.Tensor) -> torch.Tensor:
    """Blur images by random strengths, add fine and coarse noise, and shift brightness and contrast a little."""
    count = len(images)

    def uniform(scale: float = 1.0) -> torch.Tensor:
        return torch.rand(count, 1, 1, 1, device=images.device) * scale

    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    soft = torch.where(uniform() < 0.5, blurred, coarse)
    images = images + (soft - images) * uniform() * (uniform() < 0.7)
    images = images + torch.randn_like(images) * uniform(0.06) * (uniform() < 0.6)
    patches = torch.randn(count, 3, 16, 16, device=images.device) * uniform(0.06) * (uniform() < 0.5)
    images = images + F.interpolate(patches, scale_factor=4, mode="bilinear")
    return ((images - 0.5) * (0.9 + uniform(0.2)) + 0.5 + uniform(0.1) - 0.05).clamp(0, 1)


def classifier_loss(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the cross entropy of the classes plus the squared errors of the numbers."""
    loss = outputs["size"].new_zeros(())
    for name, value in outputs.items():
        if name in ATTRIBUTES:
            loss = loss + F.cross_entropy(value, targets[name], label_smoothing=0.02)
        else:
            loss = loss + F.mse_loss(value, targets[name])
    return loss


def train_classifier(
    scenes: list[Scene], pictures: np.ndarray, out: Path, minutes: float, device: str, seed: int, batch: int = 64
) -> dict:
    """Train for some minutes, from `out`/judge if that exists; save there and return the record of the stage."""
    torch.manual_seed(seed)
    unfinished = (out / "judge").exists()
    model = GardenClassifier.load(out / "judge").train().requires_grad_(True) if unfinished else GardenClassifier()
    model, targets = model.to(device), targets_of(scenes)
    average = Average(model, 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    budget, log, recent = TimeBudget(optimiser, minutes), [], []
    for index in shuffled(len(pictures), batch, seed):
        if not budget.tick():
            break
        outputs = model(augment(as_tensor(pictures[index.numpy()]).to(device)))
        loss = classifier_loss(outputs, {name: value[index].to(device) for name, value in targets.items()})
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        average.update(model)
        recent.append(loss.item())
        if budget.steps % 200 == 0:
            log.append([budget.steps, round(float(np.mean(recent)), 5)])
            print(f"judge {budget.steps} {budget.spent:.0f}s loss {log[-1][1]}", flush=True)
            recent.clear()
    average.module.save(out / "judge")
    return {"steps": budget.steps, "batch": batch, "seconds": round(budget.spent), "seed": seed, "loss": log}
