"""The host before and after teaching that ended, or was stopped in any way: `python inside_unharmed.py MODELS`.

Two prompts are drawn, one of them twice as long and with a ControlNet, and taught from. Each time a copy of the same
run is taken, and something happens when the network is evaluated for the first, a middle or the last time.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from inside import by_the_host, checkpoint, host_nodes, models, prompt, report

# isort: split
import sys

import comfy.controlnet
import comfy.model_management
import torch
from comfy.model_management import OOM_EXCEPTION, InterruptProcessingException
from pack.d3po_core.app.sampling import sample_groups
from pack.d3po_core.app.training import Next, train_round
from pack.d3po_core.picks import Pick
from pack.d3po_core.run import Run
from pack.d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from pack.d3po_core.training.reports import StepReport
from pack.d3po_core.training.round_trainer import SavedRound
from pack.d3po_core.training.trainer import Trainer
from pack.nodes.host.model import HostModel
from pack.nodes.host.process import ProgressBar
from pack.nodes.host.sampling import host_sampling
from torch import Tensor

SAMPLE = SampleSettings(steps=4, candidates=2, groups=2, guidance_scale=3.0, held_out=0.0)
TRAIN = TrainSettings(epochs=2, judge=False, batch=1)
loaded = checkpoint("tiny")
own_nodes, known_nodes = sys.modules["nodes"], set(host_nodes.NODE_CLASS_MAPPINGS)
with torch.inference_mode():
    control = comfy.controlnet.load_controlnet(str(models / "controlnet" / "tiny.safetensors"))
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    long = prompt(loaded.clip, "a red boat on a lake, " * 12)
    apply = host_nodes.ControlNetApplyAdvanced().apply_controlnet
    boat = apply(long, loaded.negative, control, image, 0.7, 0.0, 1.0)
lengths = sorted({int(cond[0][0].shape[1]) for cond in (loaded.positive, boat[0])})


@contextmanager
def at_evaluation(number: int, happens: Callable[[], None]) -> Iterator[list[int]]:
    """Let something happen when the network is evaluated for the so-manieth time; how many there were."""
    seen = [0]

    def count(module: torch.nn.Module, args: Any) -> None:
        if module is loaded.patcher.model.diffusion_model:
            if seen[0] == number:
                happens()
            seen[0] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()
        comfy.model_management.interrupt_current_processing(False)


def draw(folder: Path) -> Run:
    """A run with a group of each of two prompts, all judged."""
    model = HostModel(loaded.patcher, loaded.latent, loaded.vae)
    model.prompts = {"lake": (loaded.positive, loaded.negative), "boat": boat}
    run = Run.create(folder, model={"identity": model.identity}, settings={})
    for sampled in sample_groups(run, model, SAMPLE, ["lake", "boat"]):
        run.picks.add(sampled.group_id, Pick("favourite", (0,)))
    return run


def teach(run: Run) -> int:
    """One round; how many updates."""
    model, bar, losses = HostModel(loaded.patcher), ProgressBar(), []
    prompts = [run.prompts.conditioning(each.id) for each in run.prompts.all()]

    def after_update(report: StepReport) -> Next:
        losses.append(report.training.loss)
        bar.at(report.update, report.total)
        return Next.CONTINUE

    def work() -> SavedRound | None:
        trainer = Trainer.open(run, model.denoiser, TRAIN, LoraSettings(), attachment="hooks")
        return train_round(trainer, after_update)

    host_sampling(model.denoiser, prompts, run.groups.trajectory(run.groups.select()[0].id)["latents"].shape[1:], work)
    return len(losses)


def picture() -> Tensor:
    """Ordinary generation, with the ControlNet too."""
    model = HostModel(loaded.patcher, loaded.latent)
    sigmas = model.denoiser.sigmas(4, "model")
    one = by_the_host(loaded.patcher, loaded.positive, loaded.negative, loaded.latent, sigmas).latents
    return torch.cat([one, by_the_host(loaded.patcher, *boat, loaded.latent, sigmas).latents])


def tensors() -> tuple[int, int]:
    """How many live, and bytes in all that they stand on."""
    gc.collect()
    live = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return len(live), sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in live}.values())


def state() -> dict[str, Any]:
    """All that could have been changed and left so."""
    patcher, network = loaded.patcher, loaded.patcher.model
    hooks = [f"_{kind}_hooks" for kind in ("forward", "forward_pre", "backward", "backward_pre")]
    networks = [network, control.control_model]
    stores = [store for each in networks for m in each.modules() for store in (m._parameters, m._buffers)]
    values = [value for store in stores for value in store.values() if value is not None]
    return {
        "hooks": sum(len(getattr(m, name)) for each in networks for m in each.modules() for name in hooks),
        "weights": [(id(value), value.is_inference(), value.requires_grad, value.grad is None) for value in values],
        "training": [m.training for each in networks for m in each.modules()],
        "patches": (dict(patcher.patches), dict(patcher.object_patches), dict(patcher.injections)),
        "backups": (dict(patcher.backup), dict(patcher.object_patches_backup)),
        "wrappers": (repr(patcher.wrappers), repr(patcher.callbacks), repr(patcher.model_options)),
        "sampling": id(network.model_sampling),
        "control": (control.cond_hint, boat[0][0][1]["control"].cond_hint, network.current_patcher),
        "modes": (comfy.model_management.in_training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "nodes": sys.modules["nodes"] is own_nodes and set(own_nodes.NODE_CLASS_MAPPINGS) == known_nodes,
        "imported": sorted({"peft", "diffusers", "gradio"} & set(sys.modules)),
    }


def interrupt() -> None:
    """As the host's own button does: the next operation of any network raises."""
    comfy.model_management.interrupt_current_processing(True)


def fail() -> None:
    raise KeyError("stopped")


def run_out() -> None:
    raise OOM_EXCEPTION("as if")


def tried(work: Callable[[], Any], number: int, happens: Callable[[], None]) -> str:
    """What a work ended with."""
    with at_evaluation(number, happens):
        try:
            with torch.inference_mode():
                work()
        except (InterruptProcessingException, KeyError, OOM_EXCEPTION) as error:
            return type(error).__name__
        except Exception as error:
            return type(error).__name__ if "memory" in str(error) else repr(error)
    return "done"


measures: dict[str, Any] = {"lengths": lengths}
before = picture()
with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    with at_evaluation(-1, fail) as drawing, torch.inference_mode():
        draw(folder / "run").close()
    copies = iter(range(1000))

    def copied(work: Callable[[Run], Any]) -> None:
        target = folder / str(next(copies))
        shutil.copytree(folder / "run", target)
        with closing(Run.open(target)) as run:
            work(run)

    with at_evaluation(-1, fail) as teaching, torch.inference_mode():
        copied(teach)  # and whatever is kept for good is kept now
    picture()
    gc.collect()
    events: dict[str, tuple[Callable[[], Any], int, Callable[[], None]]] = {
        "teaching": (lambda: copied(teach), -1, fail),
        "teaching, a failure": (lambda: copied(teach), teaching[0] // 2, fail),
        "teaching, out of memory": (lambda: copied(teach), teaching[0] // 2, run_out),
        "drawing, a failure": (lambda: draw(folder / str(next(copies))).close(), drawing[0] // 2, fail),
    }
    for when, part in {"first": 0.0, "middle": 0.5, "last": 1.0}.items():
        at = {name: round(part * (count[0] - 1)) for name, count in {"draw": drawing, "teach": teaching}.items()}
        events[f"teaching, interrupted, {when}"] = (lambda: copied(teach), at["teach"], interrupt)
        events[f"drawing, interrupted, {when}"] = (
            *(lambda: draw(folder / str(next(copies))).close(), at["draw"]),
            interrupt,
        )
    then, live = state(), tensors()
    for name, event in events.items():
        ended = tried(*event)
        now, still = state(), tensors()
        measures[name] = {
            "ended": ended,
            "changed": [key for key in then if then[key] != now[key]],
            "tensors": still[0] - live[0],
            "bytes": still[1] - live[1],
            "same picture": torch.equal(picture(), before),
        }
        with contextlib.suppress(StopIteration):
            gc.collect()
measures["evaluations"] = (drawing[0], teaching[0])
report(measures)
