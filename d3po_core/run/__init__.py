"""A run on disk: SQLite for prompts, groups and picks, safetensors for tensors, PNG for images.

Storage knows no maths: tensors come and go as dictionaries, settings as JSON-able ones. Every write is atomic, and
nothing is ever unpickled.

A `Run` (run.py) is opened or created, and has these parts, each in the file of its name unless one is said:

| part | keeps |
| --- | --- |
| `prompts` | prompts and what the text encoder made of them |
| `groups` | candidates drawn for one prompt: images, trajectories, settings |
| `matches` | pictures of a tournament, and which of them were shown side by side |
| `picks` | what people said of groups, and counts of it |
| `flags` | single candidates that people called defective or unsafe |
| `masks` | which part of a picture people mean |
| `history` | looks back: pages of picks and flags, and how consistent a person is |
| `leases` | which page shows which group, and to how many people |
| `invitations` | who may pick from another computer, by which link |
| `rounds` | rounds of training: settings, the trainer's state, the LoRA files that came out |
| `blind_checks` | unnamed before/after pairs, and which side a person preferred |
| `previews` | a round's images of fixed prompts and seeds (blind_checks.py) |
| `metrics` | the trainer's reports, a line each (rounds.py) |
| `space` | how many bytes a run takes, and how to free some |

Beside them are agreement.py and panel.py: how much several people agree, and whose picks count.

They share database.py (tables, transactions, and the class `Part`), files.py (atomic files, and the lock of one trainer
at a time) and records.py (typed records). `RunLibrary` in run.py finds the runs in a folder.
"""

from __future__ import annotations

from .flags import StoredFlag
from .groups import Group
from .masks import StoredMask
from .picks import Judgement, StoredPick
from .records import BaseModelFacts, RoundSummary
from .rounds import LostLora, Round, policy_id
from .run import Run, device_name

__all__ = [
    "BaseModelFacts",
    "Group",
    "Judgement",
    "LostLora",
    "Round",
    "RoundSummary",
    "Run",
    "StoredFlag",
    "StoredMask",
    "StoredPick",
    "device_name",
    "policy_id",
]
