"""Stage unet: the denoiser and the text encoder, trained together; writes the pipeline at the end."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from d3po_core.embedded import PROMPTS, parse
from tools.garden.pictures import Scene
from tools.garden.train_vae import encode
from tools.garden.training_tools import Average, ProcessGroup, TimeBudget, as_tensor, captions_of, shuffled
from tools.garden.vocabulary import LENGTH, PARAPHRASES, build_tokenizer

SHAPE = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
EMPTY, PARAPHRASED, GAMMA = 0.1, 0.1, 5.0  # shares of captions dropped and reworded; min-SNR's gamma
PREVIEW_SECONDS = 300


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Make an untrained CLIP text encoder of two layers for this vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def caption_table(tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Return token numbers (wording, prompt, position): canonical captions, paraphrases, and at last empty ones."""
    wordings = [PROMPTS] + [[form.format(**parse(p)) for p in PROMPTS] for form in PARAPHRASES] + [[""] * len(PROMPTS)]
    rows = [tokenizer(w, padding="max_length", truncation=True, max_length=LENGTH).input_ids for w in wordings]
    return torch.tensor(rows)


def choose_wordings(count: int) -> torch.Tensor:
    """Draw a wording of `caption_table` for each of `count` captions."""
    uniform, last = torch.rand(count), len(PARAPHRASES) + 1
    reworded = torch.randint(1, last, (count,))
    return torch.where(uniform < EMPTY, last, torch.where(uniform < EMPTY + PARAPHRASED, reworded, 0))


def save_pipeline(
    folder: Path, unet: UNet2DConditionModel, text: CLIPTextModel, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> None:
    """Write a StableDiffusionPipeline in float32: diffusers loads what is stored, and CPUs are fastest in float32."""
    parts = [copy.deepcopy(part).to("cpu") for part in (unet, text, vae)]
    StableDiffusionPipeline(
        unet=parts[0],
        text_encoder=parts[1],
        vae=parts[2],
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    build_tokenizer(folder / "tokenizer")
    for path in folder.rglob("*.json"):
        remove_origin(path)


def remove_origin(path: Path) -> None:
    """Remove from a configuration file the path that its part was loaded from."""
    facts = json.loads(path.read_text())
    if facts.pop("_name_or_path", None):
        path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


class Denoising:
    """Latents and captions to train on, and the weighted loss.

    Args:
        latents: (N, 4, 16, 16).
        prompts: number of each latent's prompt, (N,).
        table: as `caption_table` returns it.
        device: on which to train.
    """

    def __init__(self, latents: torch.Tensor, prompts: torch.Tensor, table: torch.Tensor, device: str) -> None:
        self.latents, self.prompts, self.table = latents.to(device), prompts.to(device), table.to(device)
        self.alphas = DDIMScheduler(**NOISE).alphas_cumprod.to(device)
        self.device = device

    def loss(self, index: torch.Tensor, unet: UNet2DConditionModel, text: CLIPTextModel) -> torch.Tensor:
        """Return the squared error of the predicted noise of latents (B,), weighted by min(SNR, gamma) / SNR.

        Hang et al. 2023, arXiv 2303.09556 (min-SNR weighting).
        """
        index = index.to(self.device)
        clean, count = self.latents[index], len(index)
        noise = torch.randn_like(clean)
        steps = ((torch.arange(count) + torch.rand(count)) / count * len(self.alphas)).long().to(self.device)
        alpha = self.alphas[steps].view(-1, 1, 1, 1)
        tokens = self.table[choose_wordings(count).to(self.device), self.prompts[index]]
        predicted = unet(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, steps, text(tokens)[0]).sample
        ratio = (alpha / (1 - alpha)).flatten()
        return ((predicted - noise).square().mean((1, 2, 3)) * ratio.clamp(max=GAMMA) / ratio).mean()


@dataclass(frozen=True)
class UnetJob:
    """Settings of this stage.

    Attributes:
        out: folder of the model.
        preview: folder to which unfinished pipelines are written; None for none.
        processes: that train together.
        batch: of all processes together.
    """

    out: Path
    minutes: float
    device: str
    seed: int
    preview: Path | None
    processes: int
    batch: int = 64


def train_unet(scenes: list[Scene], pictures: np.ndarray, job: UnetJob, keep: Path | None = None) -> dict:
    """Train for some minutes, save the pipeline to `job.out`, and return the record of the stage.

    Args:
        scenes, pictures: as `picture_pool` returns them.
        job: the settings.
        keep: file in which the pictures' latents are kept for later runs.
    """
    if keep and keep.exists():
        latents = torch.from_numpy(np.load(keep))
    else:
        vae = AutoencoderKL.from_pretrained(job.out / "vae").to(job.device).eval()
        latents = torch.cat([encode(vae, as_tensor(part).to(job.device)) for part in np.array_split(pictures, 40)])
        latents = latents.cpu()
        if keep:
            np.save(keep, latents.numpy())
    numbers = {prompt: i for i, prompt in enumerate(PROMPTS)}
    prompts = torch.tensor([numbers[words] for words in captions_of(scenes[: len(latents)])])
    build_tokenizer(job.out / "tokenizer")
    print(f"{len(latents)} latents, spread {latents.std().item():.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (job, latents, prompts, Path(folder))
        if job.processes > 1:
            torch.multiprocessing.spawn(train_process, arguments, nprocs=job.processes)
        else:
            train_process(0, *arguments)
        return json.loads((Path(folder) / "facts.json").read_text())


def train_process(rank: int, job: UnetJob, latents: torch.Tensor, prompts: torch.Tensor, folder: Path) -> None:
    """Train on this process's share of the pictures and of each batch; the first process also writes the results."""
    group, device = ProcessGroup(rank, job.processes, folder / "meeting"), job.device
    if job.processes > 1:
        torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    tokenizer = CLIPTokenizer.from_pretrained(str(job.out / "tokenizer"))
    problem = Denoising(
        latents[rank :: job.processes], prompts[rank :: job.processes], caption_table(tokenizer), device
    )
    unet, text = UNet2DConditionModel(**SHAPE).to(device), new_text_encoder(tokenizer).to(device).train()
    parts = torch.nn.ModuleList([unet, text])
    average, parameters = Average(parts), list(parts.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.01)
    budget, log, clock = TimeBudget(optimiser, job.minutes), TrainingLog(job, average), 0.0
    torch.manual_seed(job.seed + 1000 * rank)
    for index in shuffled(len(problem.latents), job.batch // job.processes, job.seed + rank):
        if not budget.tick(clock):
            break
        loss = problem.loss(index, unet, text)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clock = group.share_gradients(parameters, budget.spent / budget.seconds)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if rank == 0:
            average.update(parts)
            log.note(budget, loss.item())
    if rank == 0:
        unet, text = average.module
        save_pipeline(job.out, unet, text, load_vae(job.out), tokenizer)
        (folder / "facts.json").write_text(json.dumps(log.facts(budget, len(latents))))


def load_vae(folder: Path) -> AutoencoderKL:
    """Load the autoencoder of stage vae."""
    return AutoencoderKL.from_pretrained(folder / "vae")


class TrainingLog:
    """Keeps the losses, and writes an unfinished pipeline now and then."""

    def __init__(self, job: UnetJob, average: Average) -> None:
        self.job, self.average, self.shown = job, average, 0.0
        self.log: list[list[float]] = []
        self.recent: list[float] = []

    def note(self, budget: TimeBudget, loss: float) -> None:
        """Record the loss of a step, and write a preview if it is time."""
        self.recent.append(loss)
        if budget.steps % 100 == 0:
            self.log.append([budget.steps, round(float(np.mean(self.recent)), 5)])
            print(f"unet {budget.steps} {budget.spent:.0f}s loss {self.log[-1][1]}", flush=True)
            self.recent.clear()
        if self.job.preview and budget.spent - self.shown > PREVIEW_SECONDS:
            self.shown = budget.spent
            new = self.job.preview.with_suffix(".new")
            tokenizer = CLIPTokenizer.from_pretrained(str(self.job.out / "tokenizer"))
            unet, text = self.average.module
            save_pipeline(new, unet, text, load_vae(self.job.out), tokenizer)
            swap(new, self.job.preview)
            print(f"preview written at step {budget.steps}", flush=True)

    def facts(self, budget: TimeBudget, pictures: int) -> dict:
        """Return the record of the stage."""
        return {
            "steps": budget.steps,
            "batch": self.job.batch,
            "processes": self.job.processes,
            "pictures": pictures,
            "seconds": round(budget.spent),
            "seed": self.job.seed,
            "loss": self.log,
        }


def swap(new: Path, place: Path) -> None:
    """Put a finished folder in the place of the former one, which is kept as `.old`."""
    shutil.rmtree(place.with_suffix(".old"), ignore_errors=True)
    if place.exists():
        os.rename(place, place.with_suffix(".old"))
    os.rename(new, place)
