"""From which distance of latents do two images look different: `python -m benchmarks.near`.

Pairs of images of the embedded model that share their start and differ by the noise of the early steps, from almost
none (eta 0.01) to all (eta 1). For every eta: the distance of final latents, in their standard deviations, as
`d3po_core/diffusion/rollout.py` measures it, and that of the decoded images, in levels of 255 (both root mean
squares).

Seeds: 0 to 7, one pair each.
"""

from __future__ import annotations

import argparse

from d3po_core.diffusion.rollout import DUPLICATE_DISTANCE, CandidateNoise, distances, make_plan
from d3po_core.embedded import split_prompts
from d3po_core.models import load_model
from d3po_core.settings import SampleSettings

ETAS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0)
SEEDS = 8


def pairs(eta: float) -> tuple[list[float], list[float]]:
    """Return the distances of latents and of images, one of each for every seed."""
    model = load_model("garden")
    settings = SampleSettings(candidates=2, guidance_scale=2.5, eta=eta)
    plan, shape = make_plan(model.denoiser, settings), model.latent_shape(0, 0)
    prompts = split_prompts()[0]
    latent, picture = [], []
    for seed in range(SEEDS):
        noises = [CandidateNoise(seed, 0, candidate, shape, "same") for candidate in range(2)]
        conditioning = model.encode([prompts[seed % len(prompts)]]) * 2
        latents = model.sample(plan, noises, conditioning, settings.guidance_scale).latents
        images = model.decode(latents)
        latent.append(float(distances(latents)[0, 1]))
        picture.append(float((255 * (images[0] - images[1])).square().mean().sqrt()))
    return latent, picture


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"left out below {DUPLICATE_DISTANCE:g} standard deviations")
    print(f"\n{'eta':>5}{'latents, std':>20}{'pictures, of 255':>20}{'left out':>14}")
    for eta in ETAS:
        latent, picture = pairs(eta)
        spans = [f"{min(distance):.2f} to {max(distance):.2f}" for distance in (latent, picture)]
        print(
            f"{eta:>5g}{spans[0]:>20}{spans[1]:>20}{sum(d < DUPLICATE_DISTANCE for d in latent):>8} of {SEEDS}",
            flush=True,
        )


if __name__ == "__main__":
    main()
