"""What is done with a finished round's LoRA: keep it, use it weaker, go back to an earlier one, or copy it to a host.

A copy gets a name that is still free, because hosts remember LoRAs by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from ..errors import D3POError
from ..lora import load_lora, unused_path, write_new
from ..lora.file import hashes, lora_metadata
from ..run import LostLora, Round, Run, files, policy_id

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
        decision: "keep" undoes an earlier decision after the same check, if there was one; "gentler" makes the
            round's LoRA weaker, "back" lets an earlier policy sample.
        strength: for "gentler", a share of what was taught.
        publish: called with a LoRA file that was written anew.

    Raises:
        D3POError: there is no such round, its file is missing or damaged, or the folder cannot be written to.
    """
    if decision == "gentler":
        summary = _finished(run, round).summary
        publish(scale_lora(run, round, strength, summary.strength_before or summary.lora_strength))
    elif decision == "keep":
        check = run.blind_checks.last()
        if check and check.round == round and check.decision in ("gentler", "back"):
            before = _finished(run, round).summary.strength_before
            if before is not None:
                publish(scale_lora(run, round, before))
            elif check.decision == "back":
                run.rounds.go_back(policy_of(run, str(round)))
    elif decision == "back":
        run.rounds.go_back(policy_of(run, str(round) if round else "base"))


def scale_lora(run: Run, number: int, strength: float, strength_before: float | None = None) -> Path:
    """Write a round's LoRA at a part of its strength, let that sample from now on, and return the new file.

    Args:
        run: the run.
        number: of a finished round.
        strength: its share of what was taught, however weak the round's present file is.
        strength_before: where a person chose it after the blind check, the strength to which "keep" goes back.

    Raises:
        D3POError: there is no such round, its file is missing or damaged, or the folder cannot be written to.
    """
    path = _weakened(run, _finished(run, number), strength)
    run.rounds.replace_lora(number, path, policy_id(path), strength, strength_before)
    return path


def _finished(run: Run, number: int) -> Round:
    """Return the finished round of this number, whose LoRA can be made weaker; raises D3POError without one."""
    round = next((each for each in run.rounds.all() if each.number == number), None)
    if round is None or round.lora_file is None:
        raise D3POError(f"There is no round {number} to make gentler.")
    return round


def _weakened(run: Run, round: Round, strength: float) -> Path:
    """Write the LoRA of a finished round at a part of its full strength into the run, and return the new file."""
    from safetensors.torch import save

    whole_file = round.summary.whole_file
    original = run.folder / whole_file if whole_file else lora_of(run, round.number)
    tensors, metadata = load_lora(original)
    tensors = {key: value * strength if key.endswith(UP) else value for key, value in tensors.items()}
    path = unused_path(original.parent, f"{run.name}-round{round.number}-{strength:.0%}".rstrip("%"))
    metadata |= {"ss_output_name": path.stem, "modelspec.title": path.stem, "d3po_strength": f"{strength:.3f}"}
    write_new(path, save(tensors, {**metadata, **hashes(tensors, metadata)}))
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
        D3POError: nothing was taught yet, there is no such round, or its file is missing or damaged.
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


# -- going on without a file that is missing or damaged ----------------------------------------------------------------

POLICY = "d3po_policy"
"""In the metadata of a copy whose other metadata a host changed: the policy that it is a copy of."""
NO_COPIES: Mapping[Path, str] = MappingProxyType({})


@dataclass(frozen=True)
class WayOn:
    """How a run goes on whose LoRA file is missing or damaged.

    Attributes:
        lost: what was found.
        to: number of the round that draws and is taught on from then on; 0 for the base model. It is the round itself
            where its LoRA can be brought back.
        copy: a file that holds the same LoRA; None without one.
    """

    lost: LostLora
    to: int
    copy: Path | None = None


def way_on(run: Run, copies: Mapping[Path, str] = NO_COPIES) -> WayOn | None:
    """Return how a run can go on; None where its LoRA files are sound.

    Args:
        run: the run.
        copies: LoRA files, some of which may be copies of the run's own, each with the policy that a host has noted
            beside it; "" without.
    """
    lost = run.rounds.lost()
    if lost is None:
        return None
    copy = next((path for path, noted in copies.items() if _is_copy(path, lost.round, noted)), None)
    if copy is not None or _can_be_weakened_anew(run, lost.round):
        return WayOn(lost, lost.round.number, copy)
    now = run.rounds.current_policy()
    if now == lost.round.lora_hash:
        return WayOn(lost, lost.back_to or 0)
    maker = run.rounds.maker(now)  # only a stopped round departs from the one that is lost
    return WayOn(lost, maker.number if maker else 0)


def go_on(run: Run, copies: Mapping[Path, str] = NO_COPIES) -> WayOn | None:
    """Let a run go on whose LoRA file is missing or damaged, and return how; None where nothing was wrong.

    The LoRA is brought back from a copy, or from the stronger file that it was made from. Without those the run goes
    back to an earlier round, and a stopped round that had begun from the lost one begins anew. No file is deleted.

    Args:
        run, copies: see `way_on`.

    Raises:
        D3POError: the run is being trained just now, or its folder cannot be written to.
    """
    way = way_on(run, copies)
    if way is None:
        return None
    lost = way.lost.round
    if way.copy is not None:
        _bring_back(run, lost, way.copy)
    elif way.to == lost.number:
        with run.rounds.lock():
            run.rounds.restore(lost.number, _weakened(run, lost, lost.summary.lora_strength))
    else:
        run.rounds.go_back(policy_of(run, str(way.to) if way.to else "base"))
    return way


def restore(run: Run, number: int, copy: Path) -> None:
    """Bring the LoRA of a round back from a copy; what lies in its place stays there.

    Raises:
        D3POError: it is no copy of that LoRA, the run is being trained just now, or its folder cannot be written to.
    """
    round = next(each for each in run.rounds.all() if each.number == number)
    if not _is_copy(copy, round):
        raise D3POError(
            f"{copy} is no copy of the LoRA of round {number}.",
            "Name the file that was exported, or that the program that taught it put among its LoRAs.",
            "Nothing was changed.",
        )
    _bring_back(run, round, copy)


def _bring_back(run: Run, round: Round, copy: Path) -> None:
    """Use a copy for a round; no trainer may be at work, which would note the policy that the round had."""
    assert round.lora_file is not None, "only a finished round has lost a file"
    place = run.folder / round.lora_file
    with run.rounds.lock():
        run.rounds.restore(round.number, copy_to(copy, unused_path(place.parent, place.stem)))


def _is_copy(path: Path, round: Round, noted: str = "") -> bool:
    """Return whether a file holds the LoRA of a round: as its metadata or a host's note say, or byte for byte."""
    try:
        named = _named_policy(path) or noted
    except D3POError:
        return False
    return named == round.lora_hash or policy_id(path) == round.lora_hash


def _can_be_weakened_anew(run: Run, round: Round) -> bool:
    """Return whether the stronger file that a round's present one was made from is there, and is not cut."""
    if round.summary.whole_file is None:
        return False
    try:
        _named_policy(run.folder / round.summary.whole_file)
    except D3POError:
        return False
    return True


def _named_policy(path: Path) -> str:
    """Return the policy that a LoRA file's metadata name, "" without; the gallery asks often, of many files.

    Raises:
        D3POError: the file is missing, cut or no LoRA.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise D3POError(f"There is no LoRA file {path}.") from error
    return _read_named_policy(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _read_named_policy(path: Path, size: int, changed: int) -> str:
    """Read the policy; size and time of change are there so that a file is read again once it has changed."""
    return lora_metadata(path).get(POLICY, "")
