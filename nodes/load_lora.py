"""Load Taste LoRA: what a taste has taught, on a model, without looking for the file."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..d3po_core.errors import D3POError
from ..d3po_core.run import Run
from . import folders, loras, upstream
from .host import with_lora
from .inputs import ALIASES, taste_input


class LoadTasteLora(io.ComfyNode):
    """See the help page."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="D3PO_LoadTasteLora",
            display_name="Load Taste LoRA",
            category="D3PO",
            description="Puts what a taste has taught on a model: the newest round, or an earlier one.",
            search_aliases=[*ALIASES, "lora loader"],
            inputs=[
                io.Model.Input("model", tooltip="The model that was taught, or another of its family."),
                taste_input(),
                io.Int.Input("round", default=0, min=0, max=10_000, tooltip="Which round; 0 is the latest."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="1 is as it was taught, 0 is the model without it.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model"), io.LoraModel.Output(display_name="lora")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> Any:
        """Changes when a round is taught."""
        return [(run.run_id, run.name, run.current_policy()) for run in folders.shelf().runs()]

    @classmethod
    def execute(cls, model: Any, taste: str, round: int, strength: float) -> Any:
        carried = upstream.carried(cls.hidden.prompt, str(cls.hidden.unique_id))
        run = folders.known(taste, upstream.checkpoint_of(model, carried))
        tensors = loras.read(taught(run, round))
        return io.NodeOutput(with_lora(model, tensors, strength), tensors)


def taught(run: Run, round: int) -> Any:
    """The LoRA file of a round, or for 0 of the one that the taste stands at."""
    file = run.lora(str(round) if round else run.current_policy())
    if file is None:
        raise D3POError(f"The taste '{run.name}' was not taught yet.", "Pick favourites, then press Teach.")
    return file
