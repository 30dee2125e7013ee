"""Every function of the web UI's that we call, and how. Where one takes other arguments, that is said in one sentence
when the web UI starts, and nothing is begun.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UPDATE = "Update D3PO, or the web UI."


@dataclass(frozen=True)
class Call:
    """A function as we call it.

    Attributes:
        where: its module, a colon, and its name there.
        positional: how many arguments it is given by position; a method of a class has its object among them.
        named: which it is given by name.
        everywhere: whether every host has it.
    """

    where: str
    positional: int = 0
    named: tuple[str, ...] = ()
    everywhere: bool = True


UNET = ("context", "transformer_options", "y")
CALLS = (
    Call("modules.processing:decode_latent_batch", 3, ("check_for_nans",)),
    Call("modules.prompt_parser:SdConditioning", 1, ("is_negative_prompt", "width", "height")),
    Call("modules.sd_models:CheckpointInfo.calculate_shorthash", 1),
    Call("modules.progress:create_task_id", 1),
    Call("modules.progress:add_task_to_queue", 1),
    Call("modules.progress:start_task", 1),
    Call("modules.progress:finish_task", 1),
    Call("modules.progress:pending_tasks.pop", 2),
    Call("modules.call_queue:queue_lock.acquire"),
    Call("modules.call_queue:queue_lock.release"),
    Call("modules.shared:state.begin", 0, ("job",)),
    Call("modules.shared:state.end"),
    Call("modules.shared:OptionInfo", 4, ("section",)),
    Call("modules.shared:opts.add_option", 2),
    Call("modules.shared:opts.onchange", 2),
    Call("modules.script_callbacks:on_ui_settings", 1),
    Call("modules.script_callbacks:on_ui_tabs", 1),
    Call("modules.script_callbacks:on_app_started", 1),
    Call("modules.script_callbacks:on_script_unloaded", 1),
    Call("modules.devices:autocast", everywhere=False),
    Call("modules.devices:without_autocast", everywhere=False),
    Call("networks:load_networks", 3, everywhere=False),
    Call("modules.hypernetworks.hypernetwork:load_hypernetworks", 2, everywhere=False),
    # A1111, and the members of the Forge family that load a model as it does
    Call("modules.sd_models:select_checkpoint", everywhere=False),
    Call("modules.sd_models:reload_model_weights", everywhere=False),
    Call("modules.sd_models:apply_alpha_schedule_override", 1, everywhere=False),
    # Forge Neo and Forge
    Call("modules.sd_models:forge_model_reload", everywhere=False),
    Call("backend.memory_management:load_models_gpu", 2, everywhere=False),
    Call("backend.modules.k_prediction:rescale_zero_terminal_snr_sigmas", 1, everywhere=False),
    Call("backend.patcher.base:ModelPatcher.memory_required", 2, everywhere=False),
    Call("backend.nn.unet:IntegratedUNet2DConditionModel.forward", 3, UNET, everywhere=False),
    Call("backend.nn.vae:IntegratedAutoencoderKL.decode", 2, everywhere=False),
    Call("backend.diffusion_engine.sd15:StableDiffusion.get_learned_conditioning", 2, everywhere=False),
    Call("backend.diffusion_engine.sd15:StableDiffusion.set_clip_skip", 2, everywhere=False),
    Call("backend.diffusion_engine.sdxl:StableDiffusionXL.get_learned_conditioning", 2, everywhere=False),
    Call("backend.diffusion_engine.sdxl:StableDiffusionXL.set_clip_skip", 2, everywhere=False),
    # Forge Neo's flow models
    Call("backend.diffusion_engine.base:ForgeDiffusionEngine.set_shift", 2, everywhere=False),
    Call("backend.diffusion_engine.flux:Flux.get_learned_conditioning", 2, everywhere=False),
    Call("backend.diffusion_engine.krea:Krea2.get_learned_conditioning", 2, everywhere=False),
    Call("backend.sampling.condition:compile_conditions", 1, everywhere=False),
    Call("backend.sampling.sampling_function:calc_cond_uncond_batch", 6, everywhere=False),
    Call("modules.sd_samplers:create_sampler", 2, everywhere=False),
    Call("modules.sd_samplers_kdiffusion:KDiffusionSampler.get_sigmas", 3, everywhere=False),
    # reForge and forge-classic
    Call("ldm_patched.modules.model_management:load_models_gpu", 2, everywhere=False),
    Call("ldm_patched.contrib.external_model_advanced:rescale_zero_terminal_snr_sigmas", 1, everywhere=False),
    Call("ldm_patched.modules.model_patcher:ModelPatcher.memory_required", 2, everywhere=False),
    Call("ldm_patched.ldm.modules.diffusionmodules.openaimodel:UNetModel.forward", 3, UNET, everywhere=False),
)


def function(call: Call) -> Any:
    """Return the host's function; None if it has none of that name.

    Modules that not every host has are looked for among those that it has loaded.
    """
    module, _, name = call.where.partition(":")
    try:
        found = importlib.import_module(module) if call.everywhere else sys.modules.get(module)
    except ImportError:
        return None
    return functools.reduce(lambda owner, part: getattr(owner, part, None), name.split("."), found)


def fits(call: Call, function: Any) -> bool:
    """Return whether a function takes what we give it; one that cannot be inspected is taken to."""
    try:
        inspect.signature(function).bind(*[None] * call.positional, **dict.fromkeys(call.named))
    except TypeError:
        return False
    except ValueError:  # written in C
        return True
    return True


def differing(calls: Sequence[Call] = CALLS) -> list[str]:
    """Return the names of the functions that the host lacks, or that take other arguments than we give them."""
    wrong = []
    for call in calls:
        found = function(call)
        if call.everywhere if found is None else not fits(call, found):
            wrong.append(call.where.rpartition(":")[2])
    return wrong


def sentence(names: Sequence[str]) -> str:
    """Return what is wrong with a host where these functions differ; "" if none do."""
    return f"D3PO does not know this version of the web UI: {', '.join(names)} changed." if names else ""
