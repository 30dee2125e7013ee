"""Does the LoRA do what was asked of it? Before and after, on prompts and seeds that training never saw."""

from .compare import Comparison, compare
from .evaluate import Column, Drawn, Pictures, column, pictures, plans
from .grid import before_after

__all__ = ["Column", "Comparison", "Drawn", "Pictures", "before_after", "column", "compare", "pictures", "plans"]
