"""A run on disk: SQLite for prompts, groups and picks, safetensors for tensors, PNG for images.

Storage knows no maths: tensors come and go as dictionaries, settings as JSON-able ones. Every write is atomic, and
nothing is ever unpickled.

A `Run` (run.py) is opened or created, and has these parts, each in the file of its name:

| part | keeps |
| --- | --- |
| `prompts` | prompts and what the text encoder made of them |
| `groups` | candidates drawn for one prompt: images, trajectories, settings |
| `picks` | what people said of groups, and counts of it |
| `flags` | single candidates that people called defective or unsafe |
| `history` | looks back: pages of picks and flags, and how consistent a person is |
| `leases` | which page shows which group |
| `rounds` | rounds of training: settings, the trainer's state, the LoRA files that came out |
| `blind_checks` | unnamed before/after pairs, and which side a person preferred |
| `previews` | a round's images of fixed prompts and seeds |
| `metrics` | the trainer's reports, a line each |
| `space` | how many bytes a run takes, and how to free some |

They share part.py (names of files), schema.py (tables), database.py (connections and transactions), files.py (atomic
files), records.py (typed records), recording.py (what picks and flags have in common), lock.py (one trainer at a
time) and manifest.py. images.py turns images into tensors and back; library.py finds the runs in a folder.
"""

from __future__ import annotations

from .flags import StoredFlag
from .groups import Group
from .manifest import device_name
from .picks import Judgement, StoredPick
from .prompts import Prompt
from .recording import Recorded
from .records import BaseModelFacts, RoundSummary
from .rounds import Round
from .run import Run

__all__ = [
    "BaseModelFacts",
    "Group",
    "Judgement",
    "Prompt",
    "Recorded",
    "Round",
    "RoundSummary",
    "Run",
    "StoredFlag",
    "StoredPick",
    "device_name",
]
