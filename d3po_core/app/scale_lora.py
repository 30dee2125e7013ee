"""A round's LoRA made weaker: another file, which stands for the round from then on."""

from __future__ import annotations

from pathlib import Path

from ..errors import D3POError
from ..lora import load_lora, unused_path
from ..lora.file import policy_id, write_new
from ..lora.metadata import hashes
from ..run import Run

UP = (".lora_up.weight", ".lora_B.weight")
"""Ends of the keys whose tensors carry a layer's whole strength, in the forms that we write."""


def scale_lora(run: Run, number: int, strength: float) -> Path:
    """Write a round's LoRA at a part of its strength, and let it sample from now on; the new file.

    Args:
        run: where.
        number: of a finished round.
        strength: its share of what was taught, however weak the round's present file is.

    Raises:
        D3POError: there is no such round, its file is missing or damaged, or the folder cannot be written to.
    """
    from safetensors.torch import save

    round = next((found for found in run.rounds.all() if found.number == number), None)
    if round is None or round.lora_file is None:
        raise D3POError(f"There is no round {number} to make gentler.")
    whole = run.folder / (round.summary.whole_file or round.lora_file)
    tensors, metadata = load_lora(whole)
    tensors = {key: value * strength if key.endswith(UP) else value for key, value in tensors.items()}
    path = unused_path(whole.parent, f"{run.name}-round{number}-{strength:.0%}".rstrip("%"))
    metadata |= {"ss_output_name": path.stem, "modelspec.title": path.stem, "d3po_strength": f"{strength:.3f}"}
    write_new(path, save(tensors, {**metadata, **hashes(tensors, metadata)}))
    run.rounds.replace_lora(number, path, policy_id(path), strength)
    return path
