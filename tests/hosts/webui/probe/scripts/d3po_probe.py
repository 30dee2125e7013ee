"""An extension for tests: asks a running web UI, from inside, what its network and ours predict.

Installed beside the extension itself; POST /d3po-probe/<name of a function of `Probe`> with its arguments as JSON.
Where D3PO_PROBE_COMPONENTS names a folder, the host sizes text encoders and VAEs by the config.json files in it instead
of by its own in backend/huggingface, and language models by sizes.json there instead of by its source, so that
checkpoints for tests can be small (see flow_checkpoint.py).
"""

import base64
import hashlib
import io
import json
import os
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import gradio
import torch
from fastapi import Body
from fastapi.responses import JSONResponse
from k_diffusion.sampling import sample_euler
from modules import launch_utils, rng, script_callbacks, sd_models
from PIL import Image

from d3po_core.diffusion.rollout import make_plan
from d3po_core.errors import D3POError
from d3po_core.evaluation.evaluate import deterministic
from d3po_core.lora import LayerWeights, attach, import_lora, save_lora
from d3po_core.lora.attachment import applied
from d3po_core.rewards import get_reward
from d3po_core.run.run import RunLibrary
from d3po_core.settings import LoraSettings, RewardSettings, SampleSettings, TrainSettings
from d3po_core.training.reward_gradient import PromptSample, RewardGradient
from d3po_panels import tastes
from d3po_webui import calls, host, register, teachable
from d3po_webui.cards import Cards
from d3po_webui.flow_settings import FlowSettings
from d3po_webui.model import WebuiModel
from d3po_webui.queue_host import WebuiHost
from d3po_webui.teachable import teachable_model

if COMPONENTS := os.environ.get("D3PO_PROBE_COMPONENTS"):
    from backend import loader
    from backend.nn.llm import llama

    loader.HF = COMPONENTS
    for name, numbers in json.loads((Path(COMPONENTS) / "sizes.json").read_text()).items():
        # Its own numbers but for these, as attributes: those that are fields have to be the same in config.json, whose
        # width says which class is taken.
        theirs = getattr(llama, name)
        own = {each: getattr(theirs, each) for each in dir(theirs) if not each.startswith("_")}
        setattr(llama, name, make_dataclass(name, (), namespace=own | numbers))

SECTIONS = {"sample": SampleSettings, "train": TrainSettings, "lora": LoraSettings}
NOTHING = Body(default={})


class Probe:
    """What can be asked."""

    def __init__(self):
        self.host = WebuiHost(Cards(*host.lora_folders()))

    def _turn(self):
        """A turn in the host's queue, as jobs have it."""
        return self.host.turn()

    def occupy(self, seconds):
        """Hold the host's queue for some time, as a picture of the user's that is being drawn."""
        with self._turn():
            time.sleep(seconds)

    def version(self):
        return {"host": launch_utils.git_tag(), "torch": torch.__version__, "gradio": gradio.__version__}

    def picture(self, prompt, seed, steps, lora=None, guidance_scale=7.0, side=64, **flow):
        """A square picture by the host's own sampler around our denoiser with the in-training LoRA: PNG, base64."""
        with self._turn():
            model = WebuiModel(teachable_model(), side, side, FlowSettings(**flow))
            conditioning = model.encode([prompt])[0]
            sigmas = model.denoiser.sigmas(steps, "model").float()
            x = rng.ImageRNG(model.latent_shape(side, side), [seed]).next().cpu() * sigmas[0]

            def denoise(x, sigma):
                return model.denoiser(x, sigma, conditioning, guidance_scale).guided

            with torch.no_grad(), applied(model.denoiser, _weights(model, lora), "hooks"):
                latents = sample_euler(denoise, x, sigmas, disable=True)
                return _png(model.decode(latents)[0])

    def drawn(self, prompts, seeds, steps, negative="", guidance_scale=1.0, **flow):
        """Pictures of 64x64 as a taste's are drawn, all at once, without noise on the way: PNGs, base64."""
        with self._turn():
            model = WebuiModel(teachable_model(), 64, 64, FlowSettings(**flow))
            plan = deterministic(model, SampleSettings(steps=steps))
            conditioning = [model.encode([prompt], negative)[0] for prompt in prompts]
            shape = model.latent_shape(64, 64)
            noises = [SimpleNamespace(start=rng.ImageRNG(shape, [seed]).next()[0].cpu().clone) for seed in seeds]
            pictures = model.decode(model.sample(plan, noises, conditioning, guidance_scale).latents)
            return [_png(picture) for picture in pictures]

    def gradient(self, prompt, sigma, checkpointing=False):
        """Gradient along a random direction of a LoRA's matrices: by autograd, and by finite differences."""
        with self._turn():
            model = WebuiModel(teachable_model(), 64, 64)
            conditioning = model.encode([prompt])[0]
            attached = attach(model.denoiser.module, LoraSettings(rank=2), kind="hooks")
            try:
                with self.host.training(model, TrainSettings(checkpointing=checkpointing)):
                    return _slopes(model, attached, conditioning, sigma)
            finally:
                attached.remove()

    def reward_gradient(self, prompt, reward, checkpointing=False):
        """Gradient of a reward of pictures through sampling and the host's VAE, along a random direction of a LoRA's
        matrices: by autograd, and by finite differences; and how many matrices it reaches."""
        sample = SampleSettings(steps=3, guidance_scale=2.0, width=64, height=64)
        settings = RewardSettings(variant="draft", checkpointing=checkpointing)
        with self._turn():
            model = WebuiModel(teachable_model(), 64, 64)
            scene = PromptSample(prompt, model.encode([prompt])[0], 0)
            attached = attach(model.denoiser.module, LoraSettings(rank=2), kind="hooks")
            try:
                with self.host.training(model, settings):
                    plan = make_plan(model.denoiser, sample)
                    about = (plan.steps, model.latent_shape(64, 64), sample.guidance_scale, settings)
                    gradient = RewardGradient(model, get_reward(reward), *about)
                    return _reward_slopes(gradient, scene, attached)
            finally:
                attached.remove()

    def coded(self, seed):
        """How far latents are, that a picture is encoded to, from those that the host's own encoder gives for it, and
        how far the picture that they are decoded to with gradient is from the host's own."""
        with self._turn(), torch.no_grad():
            model = WebuiModel(teachable_model(), 64, 64)
            chance = torch.Generator().manual_seed(seed)
            image = torch.rand((1, 3, 64, 64), generator=chance)
            latents = model.encode_images(image)
            host.to_device(model.model, vae=True)
            with model.gradients_through_decode(False):
                ours = model.decode(latents).cpu()
            theirs = model.decode(latents)
            draws = [_encoded(model.model, image) for _ in range(32)]
        noise = torch.stack(draws).std(0).mean()
        off = (torch.stack(draws).mean(0) - latents).abs().mean()
        return {"picture": float((ours - theirs).abs().max()), "off": float(off), "noise": float(noise)}

    def weights(self):
        """A hash of every weight of network and VAE, in its precision."""
        with self._turn():
            model, found = host.loaded_model(), hashlib.sha256()
            for module in (host.network(model), host.vae(model)):
                for name, value in module.state_dict().items():
                    found.update(
                        f"{name} {value.dtype}".encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
                    )
            return found.hexdigest()

    def prediction(self, prompt, sigma, attached=False):
        """A few numbers of what the network predicts for fixed latents; `attached`: beside a LoRA that is off."""
        with self._turn(), torch.no_grad():
            model = WebuiModel(teachable_model(), 64, 64)
            conditioning = model.encode([prompt])[0]

            def numbers():
                x = torch.randn((1, *model.latent_shape(64, 64)), generator=torch.Generator().manual_seed(5)) * sigma
                return model.denoiser(x, torch.tensor([sigma]), conditioning, 1.0).cond.flatten()[:64].tolist()

            if not attached:
                return numbers()
            lora = attach(model.denoiser.module, LoraSettings(rank=2), kind="hooks")
            try:
                for parameter in lora.parameters():
                    parameter.data.normal_()
                with self.host.training(model, TrainSettings()), lora.off():
                    return numbers()
            finally:
                lora.remove()

    def cond_branch(self, prompt, negative):
        """A few numbers of what the network predicts for a prompt: beside its negative prompt, and alone."""
        with self._turn(), torch.no_grad():
            model = WebuiModel(teachable_model(), 64, 64)
            conditioning = model.encode([prompt], negative)[0]
            x = torch.randn((1, *model.latent_shape(64, 64)), generator=torch.Generator().manual_seed(5))
            sides = (model.denoiser(x, torch.tensor([0.7]), conditioning, 3.0, guided).cond for guided in (True, False))
            return [side.flatten()[:64].tolist() for side in sides]

    def predicted_kinds(self):
        """What networks of some kinds predict, told by the host's own classes for their noise levels."""
        return {name: host.prediction_of(kind()) for name, kind in _other_kinds().items()}

    def told_with_text(self, prompt, width, height):
        """What SDXL's network is told beside the text by the host itself: the end of it, where sizes are."""
        with self._turn():
            model = host.loaded_model()
            return host.encode(model, prompt, False, width, height)["vector"][0, -1536:].float().tolist()

    def recorded_with_text(self, taste):
        """The same, as a taste has recorded it for its first prompt."""
        run = next(run for run in RunLibrary(host.data_folder() / register.FOLDER).runs() if run.run_id == taste)
        return run.prompts.conditioning(run.prompts.all()[0].id)["cond.vector"][0, -1536:].float().tolist()

    def differing(self, more=0):
        """The host's functions that do not take what we give them, with `more` further arguments."""
        changed = [replace(call, positional=call.positional + more) for call in calls.CALLS]
        return calls.differing(changed)

    def quantised_kinds(self):
        """Which of the host's kinds of linear layers are known for those that cannot be taught."""
        from backend import operations
        from backend.operations_mixed_precision import mixed_precision_ops

        kinds = {"plain": operations.ForgeOperations, "gguf": operations.ForgeOperationsGGUF}
        kinds |= {"fast fp8": operations.ForgeOperationsFP8, "mixed": mixed_precision_ops()}
        with operations.using_forge_operations(device="cpu", dtype=torch.float32):
            return {name: teachable.is_quantised(kind.Linear(4, 4)) for name, kind in kinds.items()}

    def quantised(self):
        """What is said of a network in which one layer is of a kind that passes no gradient, and whether it was moved
        then."""
        from backend import memory_management
        from backend.operations_mixed_precision import mixed_precision_ops

        with self._turn():
            network = host.network(host.loaded_model())
        network.register_module("quantised", mixed_precision_ops().Linear(4, 4))
        memory_management.unload_all_models()
        try:
            with self._turn():
                return {"said": "nothing"}
        except D3POError as error:
            return {"said": str(error), "moved": len(memory_management.current_loaded_models)}
        finally:
            del network._modules["quantised"]

    def refused(self, function):
        """What a job says where one of the host's functions takes nothing."""
        module, _, name = function.partition(":")
        before = getattr(sys.modules[module], name)
        setattr(sys.modules[module], name, lambda: None)
        try:
            host.loaded_model()
        except D3POError as error:
            return str(error)
        finally:
            setattr(sys.modules[module], name, before)

    def share_on_card(self, free, decodes):
        """How much of the network (or of the VAE beside it, if less) stays on a graphics card while it is taught.

        The host is made to believe in an ordinary card with so many bytes free.
        """
        with self._turn():
            model = WebuiModel(teachable_model(), 64, 64)
            with _card(model.model, free), self.host.training(model, RewardSettings() if decodes else TrainSettings()):
                parts = [host.network(model.model), *([host.vae(model.model)] if decodes else [])]
                return min(_share_on_card(part) for part in parts)

    def fail_in_training(self):
        """Raise an error while the network is ready to be taught, with a LoRA on it."""
        with self._turn():
            model = WebuiModel(teachable_model(), 64, 64)
            conditioning = model.encode(["a lake"])[0]
            attached = attach(model.denoiser.module, LoraSettings(rank=2), kind="hooks")
            try:
                with self.host.training(model, TrainSettings(checkpointing=True)):
                    model.denoiser(torch.randn(1, 4, 8, 8), torch.tensor([3.0]), conditioning, 1.0)
                    raise ValueError("as planned")
            except ValueError as error:
                return str(error)
            finally:
                attached.remove()

    def advice(self):
        """How a person is told to let parts of the model compute precisely."""
        return [host.precisely(part) for part in ("VAE", "network")]

    def without_checkpoint(self):
        """What is said where there is no checkpoint; None for hosts that load one when they start."""
        data = getattr(sd_models, "model_data", None)
        if not hasattr(data, "forge_loading_parameters"):
            return None
        before, data.forge_loading_parameters = data.forge_loading_parameters, {}
        try:
            host.loaded_model()
        except D3POError as error:
            return str(error)
        finally:
            data.forge_loading_parameters = before

    def lora_names(self):
        """The LoRAs whose names are taken."""
        return sorted(self.host.cards._host_names())

    def network(self):
        """What is left on the host's network: hooks, what was replaced, what asks for gradients."""
        module = self.host.models.get().denoiser.module
        parts = list(module.modules())
        return {
            "hooks": sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts),
            "replaced": sum("forward" in vars(part) for part in parts),
            "wants_gradient": sum(value.requires_grad for value in module.parameters()),
        }

    def model(self):
        """Name of the checkpoint that a taste would be begun with."""
        with self._turn():
            return self.host.models.get().name

    def random_lora(self, file, targets):
        """Write a LoRA of ours with random weights; how many layers it has."""
        with self._turn():
            module = self.host.models.get().denoiser.module
            attached = attach(module, LoraSettings(rank=4, alpha=2.0, targets=targets), kind="hooks")
            attached.remove()
            chance = torch.Generator().manual_seed(4)
            weights = {
                path: LayerWeights(found.down, torch.randn(found.up.shape, generator=chance) / 10, found.alpha)
                for path, found in attached.weights().items()
            }
            save_lora(file, weights, module)
            return len(weights)

    def begin(self, prompts, **settings):
        """A new taste; its id."""
        sections = {name: kind(**settings.get(name, {})) for name, kind in SECTIONS.items()}
        with self._turn():
            model, library = self.host.models.get(), RunLibrary(host.data_folder() / register.FOLDER)
            more, flow = {}, FlowSettings(**settings.get("flow", {}))
            if model.denoiser.family == "flow":
                sample = sections["sample"]
                model, more = model.drawing(sample.height, sample.width, flow), flow.section()
            return tastes.begin(library, model, model.name, "A taste", tuple(prompts), **sections, more=more).run_id

    def levels(self, steps, **flow):
        """The host's levels of noise for a flow model."""
        with self._turn():
            return WebuiModel(teachable_model(), 64, 64, FlowSettings(**flow)).denoiser.sigmas(steps, "model").tolist()

    def recorded_levels(self, taste):
        """The levels at which a taste's first group was recorded."""
        run = next(run for run in RunLibrary(host.data_folder() / register.FOLDER).runs() if run.run_id == taste)
        return run.groups.trajectory(run.groups.select(recorded=True)[0].id)["steps"][0].tolist()


def _png(picture):
    file = io.BytesIO()
    Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _weights(model, lora):
    return None if lora is None else import_lora(lora, model.denoiser.module)


def _other_kinds():
    try:
        from backend.modules import k_prediction as kinds  # Forge
    except ImportError:
        try:
            from ldm_patched.modules import model_sampling as kinds  # reForge
        except ImportError:
            return {}  # A1111 has no such classes
        edm = type("EDM", (kinds.ModelSamplingContinuousEDM, kinds.V_PREDICTION), {})
        flow = type("Flow", (kinds.CONST,), {})
        noise = type("Noise", (kinds.ModelSamplingDiscrete, kinds.EPS), {})
        v = type("V", (kinds.ModelSamplingDiscrete, kinds.V_PREDICTION), {})
        return {"edm": edm, "flow": flow, "noise": noise, "v": v}
    if hasattr(kinds, "PredictionContinuousEDM"):
        return {
            "flow": kinds.PredictionFlux,
            "edm": lambda: kinds.PredictionContinuousEDM(prediction_type="edm"),
            "noise": lambda: kinds.Prediction(prediction_type="epsilon"),
            "v": lambda: kinds.Prediction(prediction_type="v_prediction"),
        }
    config = SimpleNamespace(sampling_settings={})  # Forge Neo
    discrete = {"sigma_data": 1.0, "beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012}
    return {
        "flow": lambda: kinds.PredictionFlux(config),
        "discrete flow": lambda: kinds.PredictionDiscreteFlow(config),
        "noise": lambda: kinds.Prediction(prediction_type="epsilon", timesteps=1000, **discrete),
        "v": lambda: kinds.Prediction(prediction_type="v_prediction", timesteps=1000, **discrete),
    }


@contextmanager
def _card(model, free):
    """Let the Forge family believe in a graphics card; A1111 keeps on its own what it has loaded."""
    try:
        from backend import memory_management as memory
    except ImportError:
        try:
            from ldm_patched.modules import model_management as memory
        except ImportError:
            yield
            return

    def free_memory(dev=None, torch_free_too=False):
        return (free, 0) if torch_free_too else free

    believed = {"vram_state": memory.VRAMState.NORMAL_VRAM, "lowvram_available": True, "get_free_memory": free_memory}
    believed["is_device_cpu"] = lambda device: False
    before = {name: getattr(memory, name) for name in believed}
    patchers = [model.forge_objects.unet, model.forge_objects.vae.patcher]
    devices = [patcher.load_device for patcher in patchers]
    card = torch.device("cpu", 0)  # another device than "cpu", and the same memory
    _unload_all(memory, card)
    try:
        for patcher in patchers:
            patcher.load_device = card
        for name, value in believed.items():
            setattr(memory, name, value)
        host.to_device(model)  # as at the beginning of a turn
        yield
        _unload_all(memory, card)
    finally:
        for name, value in before.items():
            setattr(memory, name, value)
        for patcher, device in zip(patchers, devices, strict=True):
            patcher.load_device = device


def _unload_all(memory, card):
    """Also from the card: Forge's own function asks for one device only."""
    with torch.inference_mode():  # as the host's own pictures do
        for device in (torch.device("cpu"), card):
            memory.free_memory(1e30, device)


def _share_on_card(module):
    """The share of a network's bytes that is not fetched anew at every pass, from 0 to 1."""
    streamed = of = 0
    for part in module.modules():
        size = sum(value.nbytes for value in (*part.parameters(recurse=False), *part.buffers(recurse=False)))
        fetched = any(name.startswith("prev_") and name.endswith(("_cast", "cast_weights")) for name in vars(part))
        streamed, of = streamed + size * fetched, of + size
    return 1 - streamed / of


def _slopes(model, attached, conditioning, sigma):
    chance = torch.Generator().manual_seed(7)
    x = torch.randn((2, *model.latent_shape(64, 64)), generator=chance) * sigma
    wanted = torch.randn(x.shape, generator=chance)
    conditioning = {name: torch.cat([value, value]) for name, value in conditioning.items()}
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.05)
    directions = [torch.randn(parameter.shape, generator=chance) for parameter in attached.parameters()]

    def value():
        return (model.denoiser(x, torch.full((2,), sigma), conditioning, 1.0, False).cond * wanted).double().sum()

    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = value()
    kept = sum(kept)
    gradients = torch.autograd.grad(found, list(attached.parameters()))
    along = sum((one * other).double().sum() for one, other in zip(gradients, directions, strict=True))
    start = [parameter.detach().clone() for parameter in attached.parameters()]

    def difference(step):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, before, direction in zip(attached.parameters(), start, directions, strict=True):
                    parameter.copy_(before + sign * step * direction)
                sides.append(value())
        return float((sides[0] - sides[1]) / (2 * step))

    # Of two steps, so that the third derivative does not count (Richardson 1911).
    differences = (4 * difference(2e-4) - difference(4e-4)) / 3
    return {"kept": kept, "autograd": float(along), "differences": differences}


def _reward_slopes(gradient, scene, attached):
    chance = torch.Generator().manual_seed(7)
    parameters = list(attached.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.05)
    start = [parameter.detach().clone() for parameter in parameters]
    gradient.backward([scene], 0, 1)  # of minus the reward
    found = [parameter.grad for parameter in parameters]
    # Half of the way up: along a random direction alone the reward hardly changes, and its last digits decide.
    scale = (sum(value.numel() for value in found) / sum(value.square().sum() for value in found)).sqrt()
    directions = [torch.randn(value.shape, generator=chance) - scale * value for value in found]
    reached = sum(value is not None and bool(value.any()) for value in found)
    along = -sum((one * other).double().sum() for one, other in zip(found, directions, strict=True))
    sides, step = [], 1e-3 / float(along)  # the reward changes by .001, thousands of times what float32 resolves
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, before, direction in zip(parameters, start, directions, strict=True):
                parameter.copy_(before + sign * step * direction)
        rewards = gradient.backward([scene], 0, 1)
        sides.append(sum(rewards) / len(rewards))
    differences = (sides[0] - sides[1]) / (2 * step)
    return {"reached": reached, "of": len(parameters), "autograd": float(along), "differences": differences}


def _encoded(model, image):
    """By the host's own way, which adds noise."""
    return model.get_first_stage_encoding(model.encode_first_stage(image * 2 - 1)).float().cpu()


def started(_, app):
    probe = Probe()

    def answer(name: str, arguments: dict = NOTHING):  # not async: it waits for the host's queue
        try:
            return JSONResponse(getattr(probe, name)(**arguments))
        except Exception:
            return JSONResponse({"error": traceback.format_exc()}, 500)

    app.add_api_route("/d3po-probe/{name}", answer, methods=["POST"])


script_callbacks.on_app_started(started)
