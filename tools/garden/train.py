"""Train the embedded model from random weights: `python -m tools.garden.train --out DIR`.

Stages: vae (autoencoder), unet (denoiser and text encoder; writes the pipeline), decoder (the autoencoder's second half
alone, for longer), judge (the classifier). Each stage is stopped by the clock. Its record (losses, seeds, times) is
written to training.json beside the model. A stage with a record is skipped, so that training can be resumed.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from tools.garden.training_tools import picture_pool

STAGES = ("vae", "unet", "decoder", "judge")


def options() -> argparse.Namespace:
    """Read the command line. The default minutes are those of the shipped model, whose vae and judge had two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--vae-minutes", type=float, default=16)
    parser.add_argument("--unet-minutes", type=float, default=22)
    parser.add_argument("--decoder-minutes", type=float, default=8)
    parser.add_argument("--judge-minutes", type=float, default=7)
    parser.add_argument("--pictures", type=int, default=40_000, help="renderings to train on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pool", type=Path, help="file (.npy) in which the drawn pictures are kept for later runs")
    parser.add_argument("--preview", type=Path, help="folder to which unfinished pipelines are written now and then")
    return parser.parse_args()


def record(out: Path, stage: str, facts: dict) -> None:
    """Add a stage to training.json."""
    all_facts = recorded(out)
    all_facts[stage] = {**facts, "torch": torch.__version__, "machine": platform.machine()}
    lines = [f" {json.dumps(name)}: {json.dumps(fact)}" for name, fact in all_facts.items()]
    (out / "training.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def recorded(out: Path) -> dict[str, dict]:
    """Return the records of the finished stages."""
    path = out / "training.json"
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    """Run the missing stages in order."""
    args = options()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    done = recorded(args.out)
    missing = [stage for stage in STAGES if stage in args.stages and stage not in done]
    if not missing:
        print("nothing to do")
        return
    scenes, pictures = picture_pool(args.seed, args.pictures, args.threads, args.pool)
    print(f"{len(scenes)} pictures drawn", flush=True)
    if "vae" in missing:
        from tools.garden.train_vae import train_vae

        record(args.out, "vae", train_vae(scenes, pictures, args.out, args.vae_minutes, device, args.seed))
    if "unet" in missing:
        from tools.garden.train_unet import UnetJob, train_unet

        processes = args.threads if device == "cpu" else 1
        job = UnetJob(args.out, args.unet_minutes, device, args.seed, args.preview, processes)
        facts = train_unet(scenes, pictures, job, args.pool and args.pool.with_suffix(".latents.npy"))
        record(args.out, "unet", facts)
    if "decoder" in missing:
        from tools.garden.train_vae import refine_decoder

        facts = refine_decoder(scenes, pictures, args.out, args.decoder_minutes, device, args.seed)
        record(args.out, "decoder", facts)
    if "judge" in missing:
        from tools.garden.train_classifier import train_classifier

        record(args.out, "judge", train_classifier(scenes, pictures, args.out, args.judge_minutes, device, args.seed))


if __name__ == "__main__":
    main()
