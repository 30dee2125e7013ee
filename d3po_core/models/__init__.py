"""The core's denoiser for diffusers pipelines: SD1.x, SD2, SDXL, latent-consistency models, SD3 and Flux.

    loading        a pipeline folder or a single .safetensors checkpoint becomes a model
    model          text encoder, network and VAE as the core's `ImageModel`
    text           prompts as conditioning
    denoiser       the network as the core's `Denoiser`
    schedule       noise levels and timesteps, from the pipeline's own scheduler configuration
    architectures  what differs from one kind of pipeline to the next
    identity       which base model this is

Left out: EDM-parametrised models (Playground 2.5), the SDXL refiner, inpainting and editing networks, offloading.
"""

from .loading import load_model
from .model import DiffusersModel

__all__ = ["DiffusersModel", "load_model"]
