"""From which distance of latents on do two pictures look different: `python -m benchmarks.near`.

Pairs of the embedded model that share their start and part by the noise of the early steps, from almost none (eta .01)
to all (eta 1). For every amount: the distance of final latents as `d3po_core/near.py` measures it, in their standard
deviations, and that of the decoded pictures, in levels of 255 (both root mean squares).

Seeds: 0 to 7, one pair each.
"""

from __future__ import annotations

from d3po_core.diffusion.duplicates import DUPLICATE_DISTANCE, distances
from d3po_core.diffusion.rollout import CandidateNoise, make_plan
from d3po_core.embedded.prompts import split_prompts
from d3po_core.models import load_model
from d3po_core.settings import SampleSettings

ETAS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0)
SEEDS = 8


def pairs(eta: float) -> tuple[list[float], list[float]]:
    """Distances of latents and of pictures, one of each seed."""
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
    print(f"left out below {DUPLICATE_DISTANCE:g} standard deviations")
    print(f"\n{'eta':>5}{'latents, std':>20}{'pictures, of 255':>20}{'left out':>14}")
    for eta in ETAS:
        latent, picture = pairs(eta)
        spans = [f"{min(found):.2f} to {max(found):.2f}" for found in (latent, picture)]
        print(
            f"{eta:>5g}{spans[0]:>20}{spans[1]:>20}{sum(d < DUPLICATE_DISTANCE for d in latent):>8} of {SEEDS}",
            flush=True,
        )


if __name__ == "__main__":
    main()
