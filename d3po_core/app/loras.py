"""What is done with a finished round's LoRA: keep it, use it weaker, go back to an earlier one, or copy it to a host.

A copy gets a name that is still free, because hosts remember LoRAs by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from ..errors import D3POError
from ..lora import load_lora, unused_path, write_new
from ..lora.file import hashes, policy_id
from ..run import Run, files

Decision = Literal["keep", "gentler", "back"]
UP = (".lora_up.weight", ".lora_B.weight")
"""Ends of the keys whose tensors carry a layer's whole strength, in the forms that we write."""


def decide(
    run: Run,
    round: int,
    decision: Decision,
    strength: float = 1.0,
    publish: Callable[[Path], object] = lambda lora: None,
) -> None:
    """Do what a person decided after a blind check.

    Args:
        run: the run.
        round: number of the round; for "back" the one to go back to, 0 for the original model.
        decision: "keep" changes nothing, "gentler" makes the round's LoRA weaker, "back" lets an earlier policy sample.
        strength: for "gentler", a share of what was taught.
        publish: called with a LoRA file that was written anew.

    Raises:
        D3POError: there is no such round, its file is missing or damaged, or the folder cannot be written to.
    """
    if decision == "gentler":
        publish(scale_lora(run, round, strength))
    elif decision == "back":
        run.rounds.go_back(policy_of(run, str(round) if round else "base"))


def scale_lora(run: Run, number: int, strength: float) -> Path:
    """Write a round's LoRA at a part of its strength, let that sample from now on, and return the new file.

    Args:
        run: the run.
        number: of a finished round.
        strength: its share of what was taught, however weak the round's present file is.

    Raises:
        D3POError: there is no such round, its file is missing or damaged, or the folder cannot be written to.
    """
    from safetensors.torch import save

    round = next((each for each in run.rounds.all() if each.number == number), None)
    if round is None or round.lora_file is None:
        raise D3POError(f"There is no round {number} to make gentler.")
    original = run.folder / (round.summary.whole_file or round.lora_file)
    tensors, metadata = load_lora(original)
    tensors = {key: value * strength if key.endswith(UP) else value for key, value in tensors.items()}
    path = unused_path(original.parent, f"{run.name}-round{number}-{strength:.0%}".rstrip("%"))
    metadata |= {"ss_output_name": path.stem, "modelspec.title": path.stem, "d3po_strength": f"{strength:.3f}"}
    write_new(path, save(tensors, {**metadata, **hashes(tensors, metadata)}))
    run.rounds.replace_lora(number, path, policy_id(path), strength)
    return path


def publish(lora: Path, folder: Path, taken: Collection[str] = ()) -> Path:
    """Copy a LoRA file into a folder, and return the copy.

    Args:
        lora: in its run.
        folder: made when missing.
        taken: stems that are not free although no such file is in the folder.

    Raises:
        D3POError: the disk is full, the folder cannot be written to, or the file is missing.
    """
    return copy_to(lora, unused_path(folder, lora.stem, taken))


def copy_to(lora: Path, path: Path) -> Path:
    """Copy a LoRA file to a path that is still free, and return it.

    Raises:
        D3POError: there is a file of that name, or it cannot be written.
    """
    if path.exists():
        raise D3POError(f"There is a file {path} already.", "Choose another name: programs remember LoRAs by name.")
    with files.writing(path.parent):
        content = lora.read_bytes()
    write_new(path, content)
    return path


def lora_of(run: Run, round: int | str = 0) -> Path:
    """Return the LoRA file of a round, or of the policy that a run stands at.

    Args:
        run: the run.
        round: its number; 0 for the policy that samples now.

    Raises:
        D3POError: nothing was taught yet, there is no such round, or its file is missing.
    """
    if round == "base":
        raise D3POError("The original model has no LoRA.", "Name the number of a round.")
    file = run.rounds.lora(policy_of(run, str(round)) if round else run.rounds.current_policy())
    if file is None:
        raise D3POError(f"The taste '{run.name}' was not taught yet.", "Pick favourites, then teach it.")
    return file


def policy_of(run: Run, name: str) -> str:
    """Return the id of a policy: "base", or that of the round with this number.

    Raises:
        D3POError: no finished round has this number.
    """
    made = {str(round.number): round.lora_hash for round in run.rounds.all() if round.lora_hash}
    if name != "base" and name not in made:
        known = f"The run has {', '.join(made)}." if made else "The run has taught nothing yet: use base."
        raise D3POError(f"There is no LoRA of a round '{name}'.", known)
    return made.get(name, "base")
