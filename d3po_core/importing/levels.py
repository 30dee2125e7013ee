"""Numbers that people gave to images: thumbs, stars, or levels of any scale."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import D3POError
from ..picks import Pick

THUMBS = (-1, 0, 1)


def are_thumbs(scores: object) -> bool:
    """Return whether these may be thumbs; so may what is no list of scores at all."""
    return not isinstance(scores, list) or all(score in THUMBS for score in scores)


def pick_of_scores(scores: list[float], images: int, thumbs: bool) -> Pick:
    """Return the pick that scores express: thumbs stay scores, of other numbers only their order counts.

    They become a ranking, because a source's numbers have no common scale; equal ones are a tie.

    Args:
        scores: one for each image.
        images: number of images.
        thumbs: whether the source's numbers are thumbs: -1, 0 and 1 only, in all of its groups.

    Raises:
        D3POError: there is not one finite number for each image, or there are equal ones above the lowest, which no
            pick can express: as thumbs they would say that something is liked.
    """
    if len(scores) != images or any(not -float("inf") < score < float("inf") for score in scores):
        raise D3POError(f"{images} pictures need {images} scores.", "Give a number for each.")
    if thumbs:
        return Pick("scores", scores=tuple(int(score) for score in scores))
    if images == 1:
        raise D3POError("A score of one picture alone says nothing.", "Use 1 for liked and -1 for disliked.")
    if min(scores) == max(scores):
        return Pick("tie")
    best_first = sorted(range(images), key=lambda each: -scores[each])
    ranked = [each for each in best_first if scores[each] > min(scores)]  # the rest share the last place
    levels = {scores[each] for each in ranked}
    if len(levels) < len(ranked):
        raise D3POError("Two of its scores are equal above the lowest.", "Give each its own, or the lowest.")
    return Pick("ranking", tuple(ranked))


def pick_of_pairs(wins: Collection[tuple[int, int]]) -> tuple[Pick, tuple[int, ...]] | None:
    """Return the pick that pairwise choices express, and the candidates that they are about, in order.

    Candidates of which no choice says otherwise are alike, as the pictures that are no favourite are.

    Args:
        wins: each choice as (preferred candidate, other one); at least one.

    Returns:
        None if no pick implies these pairs and no others: they go round in a circle, or leave out pairs that follow.
    """
    seen = tuple(sorted({each for pair in wins for each in pair}))
    beaten = {each: sum(loser == each for _, loser in set(wins)) for each in seen}
    places = sorted(set(beaten.values()))
    level = {each: len(places) - places.index(beaten[each]) for each in seen}
    if {(a, b) for a in seen for b in seen if level[a] > level[b]} != set(wins):
        return None
    best_first = sorted(seen, key=lambda each: -level[each])
    ranked = [each for each in best_first if level[each] > 1]
    if len({level[each] for each in ranked}) == len(ranked):
        return (Pick("ranking", tuple(ranked)) if len(ranked) > 1 else Pick("favourite", (ranked[0],))), seen
    if len(places) > len(THUMBS):
        return None
    bad = len(places) == len(THUMBS) or len(ranked) > 1  # where most are alike it's the others that are meant
    top = len(places) - 1 - bad
    scores = tuple(level[each] - len(places) + top if each in level else 0 for each in range(max(seen) + 1))
    return Pick("scores", scores=scores), seen
