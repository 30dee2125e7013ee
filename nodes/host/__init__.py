"""All that knows how ComfyUI works inside; nothing else in the pack imports `comfy`.

types         the host's kinds of objects, each under one name
model         MODEL, VAE and prompts as the core's image model
denoiser      MODEL as the core's denoiser
sampling      work with gradients inside one sampling of the host's
recorder      the host's own samplers, with every step noted
conditioning  CONDITIONING as tensors that a run keeps
vae           the VAE with gradients; CLIP and VAE as an encoder
clip_vision   CLIP vision as features of a reward, with gradients
checks        what cannot be trained on
memory        presets, and activations computed again
process       progress bar, interruption, memory of the process
"""
