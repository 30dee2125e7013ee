"""LoRA files taught elsewhere: `python inside_taught.py FILE... MODELS`, for the checkpoint "sd15" there."""

from __future__ import annotations

import sys
from pathlib import Path

from inside import checkpoint, report
from inside_lora_file import examined

# isort: split
import torch
from pack.nodes.host.model import HostModel

with torch.inference_mode():
    loaded = checkpoint("sd15")
    model = HostModel(loaded.patcher, loaded.latent, prompts={"lake": (loaded.positive, loaded.negative)})
    report({Path(file).stem: examined(model, Path(file)) for file in sys.argv[1:]})
