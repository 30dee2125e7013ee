"""Paired Trajectory Sampler: draws groups into a taste, each a little further than the last."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from comfy_api.latest import io

from ..d3po_core.policies import applied
from ..d3po_core.run import Run
from ..d3po_core.sampling import check_drawable, sample_groups
from ..d3po_core.settings import SampleSettings
from . import folders, prompts
from .host import HostModel, checkpoint
from .inputs import inputs, settings

LEFT_OUT = ("seed", "negative", "width", "height", "sampler")
Trajectories = io.Custom("D3PO_TRAJECTORIES")


class PairedTrajectorySampler(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PairedTrajectorySampler",
            display_name="Paired Trajectory Sampler",
            category="D3PO",
            description="Draws groups of pictures to pick favourites from, and remembers how each came about.",
            search_aliases=["taste", "favourite", "favorite", "rlhf", "dpo", "preference", "train lora", "d3po"],
            inputs=[
                io.Model.Input("model", tooltip="The model that is to learn your taste, with whatever it carries."),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Conditioning.Input("negative", tooltip="What not to draw."),
                io.Latent.Input("latent", tooltip="Size of the pictures; of a batch the first one is used."),
                io.Vae.Input("vae", tooltip="Turns what is drawn into pictures."),
                io.String.Input(
                    "taste", default=folders.AUTO, tooltip="Name of the taste; auto is one for each checkpoint."
                ),
                *inputs(SampleSettings, ("candidates", "groups", "steps", "guidance_scale"), LEFT_OUT, groups=4),
            ],
            outputs=[
                Trajectories.Output(display_name="trajectories"),
                io.Image.Output(display_name="images"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> float:
        """Every press draws new groups."""
        return float("nan")

    @classmethod
    def execute(cls, model: Any, positive: Any, negative: Any, latent: Any, vae: Any, taste: str, **values: Any) -> Any:
        chosen = settings(SampleSettings, values)
        text = prompts.text_of(cls.hidden.prompt, cls.hidden.unique_id, "positive")
        host = HostModel(model, latent, vae, eta=chosen.eta)
        run = folders.find(taste, checkpoint(model)) or begin(taste, host, chosen)
        label = prompts.label(run, host, text, positive, negative)
        drawn = []
        policy = run.current_policy()
        round = 1 + sum(each.finished is not None for each in run.rounds())
        with applied(host.denoiser, run.lora(policy), "hooks"):
            for report in sample_groups(run, host, chosen, [label], policy, round):
                drawn.append(report.group_id)
        return io.NodeOutput({"run": run.run_id, "groups": drawn}, pictures(run, drawn))


def begin(taste: str, host: HostModel, chosen: SampleSettings) -> Run:
    """A new taste."""
    check_drawable(host, chosen)
    name = host.identity if taste == folders.AUTO else taste
    about = {**dict.fromkeys(("identity", "name", "source"), host.identity), "family": host.denoiser.family}
    return Run.create(
        folders.shelf().unused(name), name=name, model=about, settings={"sample": dataclasses.asdict(chosen)}
    )


def pictures(run: Run, groups: list[str]) -> torch.Tensor:
    """The groups' pictures as the host's IMAGE (B, H, W, 3)."""
    import numpy as np
    from PIL import Image

    found = []
    for group_id in groups:
        for candidate in range(run.group(group_id).candidates):
            with Image.open(run.image_path(group_id, candidate)) as image:
                found.append(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(found))
