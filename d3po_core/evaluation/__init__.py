"""Does the LoRA do what was asked of it? Before and after, on prompts and seeds that training never saw."""

from .compare import Comparison, compare

__all__ = ["Comparison", "compare"]
