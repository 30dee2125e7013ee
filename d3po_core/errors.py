"""The one exception that is meant for a person: what was wrong, what is safe, what to do."""

from __future__ import annotations


class D3POError(Exception):
    """Bad input or a spent resource, in words that a person can act on.

    Args:
        what: what was wrong, one clear sentence.
        do: one thing to do about it.
        safe: what was kept, where something of the user's was at stake ("Your 63 picks are saved.").
    """

    def __init__(self, what: str, do: str = "", safe: str = "") -> None:
        self.what, self.do, self.safe = what, do, safe
        super().__init__(" ".join(part for part in (what, safe, do) if part))
