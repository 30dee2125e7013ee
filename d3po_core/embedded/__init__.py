"""The embedded model: a tiny Stable-Diffusion-layout model of little garden pictures, and its judge.

Only paths here, so that importing the package costs nothing.
"""

from pathlib import Path

GARDEN = Path(__file__).parent / "garden"  # a StableDiffusionPipeline folder
JUDGE = GARDEN / "judge"  # the judge's weights
