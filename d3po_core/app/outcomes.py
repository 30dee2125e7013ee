"""The sentences that say what came out, or why nothing can: the same in every front end."""

from __future__ import annotations

from ..evaluation.compare import drift_word, recommended_strength
from ..gallery.actions import MIN_PICKS
from ..importing import Imported
from ..run import Run
from ..training.methods import METHODS, needs_recording
from ..training.reports import RoundResult

RESUMED = "It went on as it was begun: changed settings, prompts and new picks are for the next round."


def why_not_train(run: Run, method: str | None) -> str:
    """Return why there is nothing to learn from; "" if there is.

    Args:
        run: with picks.
        method: that it is trained with; None if no trainer has said so yet.
    """
    recorded = needs_recording(method)
    usable, of_all_methods = run.picks.counts("", recorded).usable, run.picks.counts("").usable
    if usable < MIN_PICKS:
        more = of_all_methods - usable
        why = f"{more} more are of imported pictures, which {method} cannot learn from, as diffusion-nft can"
        return f"{waiting_for_picks(usable)}; {why}" if more else waiting_for_picks(usable)
    return "" if run.picks.untaught(recorded) else "Nothing new to teach: pick some more."


def waiting_for_picks(usable: int) -> str:
    """Return how many picks there are, and are needed."""
    return f"Waiting for picks: {usable} of {MIN_PICKS}"


def understanding(result: RoundResult) -> str:
    """Return how well a taste was understood, in a sentence."""
    if not result.guessed_of:
        return "There were too few picks to hide some, so how well the taste was understood is unknown."
    share = result.guessed / result.guessed_of
    return f"Of {result.guessed_of} picks it had not seen it predicted {share:.0%} right (chance: 50%)."


def round_outcome(result: RoundResult, reward_name: str = "", resumed: bool = False) -> str:
    """Return what came out of a round, in a few sentences.

    Args:
        result: of the round.
        reward_name: what it learnt from, for people; empty for picks.
        resumed: it had been interrupted.
    """
    parts = ["Taught."]
    if not reward_name:
        parts += [understanding(result)] if result.guessed_of else []
    elif result.figures:
        before, after = result.figures["reward_before"], result.figures["reward"]
        parts.append(f"Mean {reward_name} went from {before:.4g} to {after:.4g}.")
    if reward_name and result.strength_scan:
        strength, (_, drift) = recommended_strength(result.strength_scan), result.strength_scan[0]
        weaker = "" if strength == 1 else f": use the LoRA at strength {strength:g}"
        parts.append(f"Drift from the original is {drift_word(drift)}{weaker}.")
    return " ".join([*parts, result.reason, *([RESUMED] if resumed else [])])


def import_outcome(imported: Imported, method: str, at_most: int) -> tuple[str, list[str]]:
    """Return what was imported in a sentence or a few, and what was left out, a line each.

    Args:
        imported: the last report.
        method: that the run is trained with.
        at_most: lines about what was left out.
    """
    groups = "1 group" if imported.added == 1 else f"{imported.added} groups"
    parts = [f"Imported {groups} of pictures."]
    if imported.known:
        parts.append(f"{imported.known} were there already.")
    parts += imported.notes
    if METHODS[method].rows == "steps":
        parts.append(
            f"How they were drawn is not known, so {method} cannot learn from them; diffusion-nft, diffusion-dpo and "
            "diffusion-kto can."
        )
    lines = [str(each) for each in imported.left_out[:at_most]]
    if len(imported.left_out) > at_most:
        lines.append(f"and {len(imported.left_out) - at_most} more")
    if lines:
        parts.append(f"Left out {sum(each.groups for each in imported.left_out)}:")
    return " ".join(parts), lines
