"""The maths of sampling and training: tensors in, tensors out.

    steps           samplers as linear Gaussian steps, and how one step is taken
    noise_schedule  noise levels, timesteps and preconditioning of diffusion networks
    denoiser        what the core needs of a network: `Denoiser`
    image_model     what the core needs of text encoder, network and VAE together: `ImageModel`
    rollout         draws groups of candidates, records the steps to train, and stores them as tensors
    likelihood      log-ratio and KL of two policies on recorded steps
    losses          preference objectives, each beside its paper
    draft           sampling that a reward's gradient flows through
    tiled_decoding  decoding with gradient in the memory of one tile
    trainable       lets gradients through networks that a host loaded for inference

Nothing here depends on a run, a file or a host.
"""
