"""Preference Pairs From Images: pictures that exist already, and which of them were liked, brought into a taste."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..d3po_core.errors import D3POError
from ..d3po_core.importing import Imported, import_pictures, read_source
from ..d3po_core.run import Run
from ..d3po_core.settings import SampleSettings
from . import folders, graph
from .drawing import begin_run
from .host.checks import check_trainable
from .host.model import HostModel
from .host.vae import HostEncoder
from .inputs import ALIASES, taste_input
from .pick import Trajectories
from .progress import Working, send_event

MAX_TOLD = 3
"""Of what was left out, under the node."""


class PreferencePairsFromImages(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_PreferencePairsFromImages",
            display_name="Preference Pairs From Images",
            category="D3PO",
            description="Brings pictures that you have already, liked ones and others, into a taste.",
            search_aliases=[*ALIASES, "import", "dataset", "pick-a-pic", "winners", "losers", "diffusion-dpo", "kto"],
            inputs=[
                io.Model.Input("model", tooltip="The model that is to learn from them."),
                io.Clip.Input("clip", tooltip="Reads the pictures' prompts."),
                io.Vae.Input("vae", tooltip="Turns the pictures into latents."),
                taste_input(),
                io.String.Input(
                    "source",
                    default="",
                    tooltip="A folder with winners and losers, whose pictures know their prompts, or a .jsonl file.",
                ),
            ],
            outputs=[Trajectories.Output(display_name="trajectories")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, source: str = "", **values: Any) -> Any:
        """Changes with the files that are there."""
        path = Path(os.path.expanduser(source.strip() or "nowhere"))
        files = [path, *path.glob("*"), *path.glob("*/*")]
        return sorted((str(file), file.stat().st_mtime_ns) for file in files if file.is_file())

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any, taste: str, source: str) -> Any:
        node = str(cls.hidden.unique_id)
        if not source.strip():
            raise D3POError(
                "No source is named.", "Write the path of a folder with winners and losers, or of a .jsonl."
            )
        check_trainable(model)
        found = read_source(source.strip())  # before a taste is begun for nothing
        host, encoder = HostModel(model), HostEncoder(clip, vae)
        host.identity = graph.checkpoint_of(model, graph.carried(cls.hidden.prompt, node))
        run = folders.find(taste, host.identity) or begin_run(taste, host, SampleSettings())
        _check_family(run, host)
        with Working(run, node, "loading", len(found.groups)) as work:
            for report in import_pictures(run, found, encoder):
                work.at(report.done, report.total, f"{report.done} of {report.total} groups")
        send_event("d3po.group", taste=run.run_id, group="")
        trajectories = {
            "run": run.run_id,
            "groups": [group.id for group in run.groups.select(recorded=False)],
            "pending": [],
        }
        return io.NodeOutput(trajectories, ui={"text": [said(report)]})


def said(report: Imported) -> str:
    """What came of it, in a few sentences."""
    parts = [f"Imported {report.added} groups."]
    if report.known:
        parts.append(f"{report.known} were there already.")
    parts += report.notes
    if report.left_out:
        parts.append(f"Left out {sum(each.groups for each in report.left_out)}: {_some(report.left_out)}")
    return " ".join(parts)


def _some(left_out: Sequence[Any]) -> str:
    more = len(left_out) - MAX_TOLD
    return " ".join([*map(str, left_out[:MAX_TOLD]), *([f"And {more} more."] if more > 0 else [])])


def _check_family(run: Run, host: HostModel) -> None:
    """Raises D3POError where a taste was begun with a model of another kind."""
    if run.model["family"] != host.denoiser.family:
        raise D3POError(
            f"The taste '{run.name}' was begun with {run.model['name']}, a model of another kind.",
            "Write another name for the taste of this one.",
            "Your picks are saved.",
        )
