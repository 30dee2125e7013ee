"""The node that brings images which exist already into a taste, judged or to be compared."""

from __future__ import annotations

import os
from pathlib import Path

from comfy_api.latest import io

from ..d3po_core.app.runs import import_outcome
from ..d3po_core.errors import D3POError
from ..d3po_core.importing import import_pictures, read_source
from ..d3po_core.settings import SampleSettings, TrainSettings
from . import folders, graph, train
from .drawing import begin_run, check_family
from .host.checks import check_trainable
from .host.model import HostModel
from .host.types import Clip, Patcher, Vae
from .host.vae import HostEncoder
from .inputs import TRAJECTORIES, Trajectories, node_schema, taste_input
from .progress import Working, send_event

MAX_LEFT_OUT = 3
"""Sentences about what was left out, under the node."""


class PreferencePairsFromImages(io.ComfyNode):
    """Import judged images; see the help page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            "D3PO_PreferencePairsFromImages",
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                taste_input(),
                io.String.Input("source", default=""),
            ],
            outputs=[TRAJECTORIES.Output()],
            aliases=["import", "dataset", "pick-a-pic", "winners", "losers", "diffusion-dpo", "kto"],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, source: str = "", **values: object) -> object:
        """Return what changes with the files that are there."""
        path = Path(os.path.expanduser(source.strip() or "nowhere"))
        files = [path, *path.rglob("*")]
        return sorted((str(file), file.stat().st_mtime_ns) for file in files if file.is_file())

    @classmethod
    def execute(cls, model: Patcher, clip: Clip, vae: Vae, taste: str, source: str) -> io.NodeOutput:
        node = str(cls.hidden.unique_id)
        if not source.strip():
            raise D3POError("No source is named.", "Write the path of a folder of pictures, or of a .jsonl.")
        check_trainable(model)
        images = read_source(source.strip())  # before a taste is begun for nothing
        host, encoder = HostModel(model), HostEncoder(clip, vae)
        host.identity = graph.checkpoint_of(model, graph.upstream(cls.hidden.prompt, node))
        run = folders.find(taste, host.identity) or begin_run(taste, host, SampleSettings())
        check_family(run, host)
        with Working(run, node, "loading", len(images.groups)) as work:
            for report in import_pictures(run, images, encoder):
                work.at(report.done, report.total, f"{report.done} of {report.total} groups")
        send_event("d3po.group", taste=run.run_id, group="")
        groups = [group.id for group in run.groups.select(recorded=False)]
        method = train.trained_with.get(run.run_id, TrainSettings()).method
        sentence, left_out = import_outcome(report, method, MAX_LEFT_OUT)
        outputs = Trajectories(run=run.run_id, groups=groups, pending=[])
        return io.NodeOutput(outputs, ui={"text": [" ".join([sentence, *left_out])]})
