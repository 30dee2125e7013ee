"""The run on disk: SQLite for prompts, groups and picks, safetensors for tensors, PNG for images.

Storage knows no maths: tensors come and go as dictionaries, settings as JSON-able ones. Every write is atomic, and
nothing is ever unpickled.
"""

from __future__ import annotations

from .flags import StoredFlag
from .groups import Group
from .manifest import device_name
from .picks import Judgement, StoredPick
from .prompts import Prompt
from .recording import Recorded
from .rounds import Round
from .run import Run

__all__ = [
    "Group",
    "Judgement",
    "Prompt",
    "Recorded",
    "Round",
    "Run",
    "StoredFlag",
    "StoredPick",
    "device_name",
]
