"""Image models from diffusers pipelines: SD1.x, SD2, SDXL, latent-consistency models, SD3 and Flux.

    loading        loads a model from a pipeline folder or a .safetensors checkpoint
    model          a pipeline as the core's `ImageModel`, its network as `Denoiser`, and the base model's identity
    architectures  what differs from one kind of pipeline to the next
    schedules      noise levels, by the pipeline's own scheduler
    placement      puts a pipeline on a device, or its network's blocks on several
    checkpoints    what a single file says of itself: its kind, what it predicts, what it lacks

Left out: EDM-parametrised models (Playground 2.5), the SDXL refiner, inpainting and editing networks, offloading.
"""

from .loading import load_model
from .model import DiffusersModel

__all__ = ["DiffusersModel", "load_model"]
