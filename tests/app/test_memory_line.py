"""What a trainer says of memory before its first update: the network's own, and none it does not know."""

from __future__ import annotations

from d3po_core.app.cost import gigabytes, teaching_memory
from d3po_core.training.reports import TeachingMemory


def test_the_parts_add_up() -> None:
    memory = TeachingMemory(network=3 * 2**30, lora=2**29, row=2**30, rows=4)
    assert memory.total == 7.5 * 2**30
    whole = "Teaching, the network and its LoRA take about 7.5 GB (network 3.0, LoRA 0.50, 4 rows at once of 1.0)."
    assert teaching_memory(memory) == whole


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert teaching_memory(None) == ""


def test_small_amounts_have_two_digits() -> None:
    assert [gigabytes(size * 2**20) for size in (5, 512, 1024, 24 * 1024)] == ["0.00", "0.50", "1.0", "24.0"]
