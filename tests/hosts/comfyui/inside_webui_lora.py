"""A LoRA from a web UI in ComfyUI: `python inside_webui_lora.py CHECKPOINT LORA` prints how many layers it is put on,
and what the host says of those that it does not know."""

from __future__ import annotations

import json
import logging
import os
import sys

sys.path.insert(0, os.environ["COMFYUI_DIR"])
lora, file = sys.argv.pop(), sys.argv.pop()

import comfy.cli_args  # noqa: E402 - can be imported only once its folder is known

comfy.cli_args.args.cpu = True

import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402


class Complaints(logging.Handler):
    """What is logged of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if "not loaded" in line or "mismatch" in line.lower():
            self.lines.append(line)


said = Complaints()
logging.getLogger().addHandler(said)
with torch.inference_mode():
    prefix = "model.diffusion_model."
    tensors = comfy.utils.load_torch_file(file)
    network = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    model = comfy.sd.load_diffusion_model_state_dict(network)
    with_it, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(lora), 1.0, 0.0)
print(json.dumps({"patches": len(with_it.patches), "complaints": said.lines}))
