"""What chance alone does, so that a person can tell luck from taste."""

from __future__ import annotations

import math


def chance_range(n: int, share: float = 0.95) -> tuple[int, int]:
    """The narrowest symmetric range of heads in n tosses of a fair coin that holds at least `share` of all outcomes."""
    for outside in range(n // 2 + 1, -1, -1):
        low, high = outside, n - outside
        if low > high:
            continue
        inside = sum(math.comb(n, heads) for heads in range(low, high + 1)) / 2**n
        if inside >= share:
            return low, high
    return 0, n
