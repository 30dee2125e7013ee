"""What chance alone does, so that a person can tell luck from taste."""

from __future__ import annotations

import math


def chance_range(n: int, share: float = 0.95) -> tuple[int, int]:
    """The narrowest symmetric range of heads in n tosses of a fair coin that holds at least `share` of all outcomes."""
    low = n // 2
    while sum(math.comb(n, heads) for heads in range(low, n - low + 1)) < share * 2**n:
        low -= 1
    return low, n - low
