"""One round at a model's real size, on the command line: `python -m benchmarks.real_sizes sd15 --tokenizer FOLDER`.

The network, text encoders and VAE have the real configuration and random weights. They are written as a pipeline, and
`d3po sample`, `annotate`, `train` and `export` go over it, each in a process of its own: its seconds and
its peak resident memory over the bytes of the weights are printed, then what is on the disk. The tokenizer is CLIP's
(vocab.json, merges.txt, tokenizer_config.json), which cannot be made up.

SD1.5 takes 4 GB of disk and 6 GB of memory in float32, SDXL 7 GB and 9 GB in bfloat16.

Seeds: weights 0, noise 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from d3po_core.planning.networks import NAMES, Configuration, configuration_of

GIB = 2**30
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
DTYPES = {"sd15": "float32", "sdxl": "bfloat16"}
READS = 77
"""Tokens that CLIP reads."""


def write_pipeline(name: str, dtype: torch.dtype, tokenizer: Path, folder: Path) -> int:
    """Write a pipeline of a known model with random weights, and return the bytes of its weights."""
    torch.manual_seed(0)
    configuration, index, size = configuration_of(name), dict[str, object](), 0
    for part, entry in configuration["model_index"].items():
        index[part] = entry
        if isinstance(entry, list) and part in configuration:
            size += _write_part(configuration, part, entry, dtype, folder / part)
        if part.startswith("text_encoder"):
            index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
            _write_tokenizer(tokenizer, folder / part.replace("text_encoder", "tokenizer"))
    (folder / "model_index.json").write_text(json.dumps(index))
    return size


def _write_part(configuration: Configuration, part: str, entry: list[str], dtype: torch.dtype, folder: Path) -> int:
    """Write one part of a pipeline: its configuration and, where it has any, its weights; return the bytes of these."""
    import diffusers
    import transformers

    library, kind = entry
    if part == "scheduler":
        folder.mkdir(parents=True)
        (folder / "scheduler_config.json").write_text(json.dumps({**configuration[part], "_class_name": kind}))
        return 0
    if library == "diffusers":
        module: nn.Module = getattr(diffusers, kind).from_config(configuration[part])
    else:
        built = getattr(transformers, kind)
        module = built(built.config_class.from_dict(configuration[part]))
    module = module.to(torch.float32 if part == "vae" else dtype)
    module.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
    return sum(parameter.nbytes for parameter in module.parameters())


def _write_tokenizer(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": READS}))


def measured(what: str, weights: int, *arguments: str) -> None:
    """Run a command of d3po, and print its seconds and memory."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", MEASURE, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peak = int(done.stdout.splitlines()[-1])
    seconds = time.perf_counter() - begun
    print(f"{what:10}{seconds:>9.0f}{peak / GIB:>12.2f}{(peak - weights) / GIB:>15.2f}", flush=True)


MEASURE = """import sys
from benchmarks.memory_use import peak_resident
from d3po_core.cli import main
status = main(sys.argv[1:])
print(peak_resident())
sys.exit(status)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(DTYPES))
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of CLIP's tokenizer")
    parser.add_argument("--side", default="256", help="of pictures, in pixels [256]")
    parser.add_argument("--steps", default="20", help="of sampling [20]")
    parser.add_argument("--folder", type=Path, help="where the pipeline is, or is written and kept [none is kept]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, run, dtype = options.folder or Path(temporary) / "model", Path(temporary) / "run", DTYPES[options.model]
        if (folder / "model_index.json").is_file():
            weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        else:
            weights = write_pipeline(options.model, getattr(torch, dtype), options.tokenizer, folder)
        print(f"{NAMES[options.model]}, {dtype}, {options.side} pixels, weights {weights / GIB:.2f} GiB\n")
        print(f"{'':10}{'seconds':>9}{'peak, GiB':>12}{'over weights':>15}")
        size = ("--width", options.side, "--height", options.side, "--steps", options.steps)
        prompts = ("--prompt", "a red fox", "--prompt", "a blue boat")
        drawn = ("--groups", "2", "--candidates", "2", "--batch", "2")
        measured(
            "sample",
            weights,
            "sample",
            "--run",
            str(run),
            "--model",
            str(folder),
            "--dtype",
            dtype,
            *prompts,
            *drawn,
            *size,
        )
        measured("annotate", 0, "annotate", "--run", str(run), "--scorer", "warmth")
        measured("train", weights, "train", "--run", str(run), "--epochs", "1", "--no-judge")
        lora = Path(temporary) / "lora.safetensors"
        measured("export", 0, "export", "--run", str(run), "--to", str(lora))
        disk = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
        print(f"\nLoRA {lora.stat().st_size / 2**20:.1f} MiB, run {disk / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
