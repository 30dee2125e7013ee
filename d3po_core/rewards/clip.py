"""A CLIP model (Radford et al. 2021, arXiv 2103.00020) from a folder as transformers saves it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import D3POError
from .aesthetic_head import AestheticHead
from .clip_images import ImagePreparation
from .reward import Reward

BOTH = ("clip",)
VISION = ("clip_vision_model", "aesthetics_predictor")
"""What config.json calls a model of pictures and text, and one of pictures alone."""
BATCH = 16
"""Pictures at once."""
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Either will do."""
DO = "Choose a folder with config.json, model.safetensors and preprocessor_config.json, as transformers saves it."


class Clip:
    """A frozen CLIP, in float32; it moves to the device of the pictures that it is shown.

    Args:
        folder: where it lies.
        text: whether prompts are to be read too.

    Raises:
        D3POError: the folder is none, of another kind, incomplete, or its weights are not safetensors.
    """

    def __init__(self, folder: str | Path, text: bool = True) -> None:
        self.folder = Path(os.path.expanduser(folder))
        kind = _kind(self.folder, text)
        _check_weights(self.folder)
        self.prepare = ImagePreparation.read(self.folder)
        self.model = _load(self.folder, kind)
        self.tokenizer = _tokenizer(self.folder) if text else None

    def of_pictures(self, images: Tensor) -> Tensor:
        """Embeddings (B, F) of length 1 of pictures (B, 3, H, W) in [0, 1], with gradient."""
        with torch.inference_mode(False):  # whose tensors could take no part in gradients later
            self.model.to(images.device)
        parts = []
        for part in images.float().split(BATCH):
            seen = self.model.vision_model(pixel_values=self.prepare(part)).pooler_output
            parts.append(self.model.visual_projection(seen))
        return F.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def of_texts(self, texts: list[str]) -> Tensor:
        """Embeddings (B, F) of length 1; what is too long is cut off at its end."""
        assert self.tokenizer is not None
        longest = self.model.config.text_config.max_position_embeddings
        read = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        read = {name: read[name].to(self.model.logit_scale.device) for name in ("input_ids", "attention_mask")}
        return F.normalize(self.model.text_projection(self.model.text_model(**read).pooler_output), dim=1)

    def cosines(self, images: Tensor, texts: list[str]) -> Tensor:
        """The cosine of each picture's and its text's embeddings, (B,)."""
        return (self.of_pictures(images) * self.of_texts(texts)).sum(1)

    @property
    def width(self) -> int:
        """Numbers of an embedding, F."""
        return int(self.model.visual_projection.out_features)

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by to make logits."""
        return self.model.logit_scale.detach().exp()


def _kind(folder: Path, text: bool) -> str:
    """What config.json says that the folder holds."""
    path = folder / "config.json"
    if not path.is_file():
        raise D3POError(f"{folder} is not a CLIP folder: it has no config.json.", DO)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise D3POError(f"{path} cannot be read ({error}).", "Use another copy of the folder.") from error
    kind = str(config.get("model_type") or config.get("_class_name") or "something unknown")
    if kind in BOTH or (kind in VISION and not text):
        return kind
    if kind in VISION:
        raise D3POError(
            f"{folder} holds a CLIP for pictures alone, and this reward reads the prompt too.",
            "Choose the folder of the whole CLIP model.",
        )
    raise D3POError(f"{folder} holds {kind}, not a CLIP for pictures{' and text' if text else ''}.", DO)


def _check_weights(folder: Path) -> None:
    if any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return
    pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    if pickles:
        raise D3POError(
            f"The weights in {folder} are a pickle ({pickles[0]}), which can run any program and is never read.",
            "Save the model as safetensors: model.save_pretrained(folder, safe_serialization=True).",
        )
    raise D3POError(f"{folder} has no model.safetensors.", DO)


def _load(folder: Path, kind: str) -> Any:
    try:
        from transformers import CLIPModel, CLIPVisionModelWithProjection
    except ImportError as error:
        raise D3POError("CLIP-type rewards need transformers, which is not installed.", "Install it.") from error
    # Not AutoModel: that would want the published head's own program for "aesthetics_predictor".
    loader = CLIPModel if kind in BOTH else CLIPVisionModelWithProjection
    try:
        model, said = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever a damaged file makes the library say
        reason = str(error).strip().partition("\n")[0]
        raise D3POError(f"The CLIP in {folder} cannot be loaded ({reason}).", "Use another copy of it.") from error
    missing = sorted(said["missing_keys"])
    if missing:  # the library would fill them with noise
        raise D3POError(
            f"The weights in {folder} are not those of the CLIP that config.json describes: {missing[0]} is missing.",
            DO,
        )
    return model.float().eval().requires_grad_(False)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
            raise FileNotFoundError  # newer versions of the library would make one that knows no words
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise D3POError(
            f"The CLIP in {folder} has no tokenizer that can be read.",
            "Put the tokenizer files of the CLIP that it was made from beside it (tokenizer.json, or vocab.json and "
            "merges.txt).",
        ) from error


@dataclass(frozen=True)
class ClipScore:
    """The cosine of a picture's and its prompt's embedding, times the model's logit scale if `scaled`."""

    clip: Clip
    scaled: bool

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        cosines = self.clip.cosines(images, prompts)
        return cosines * self.clip.scale if self.scaled else cosines


@dataclass(frozen=True)
class AestheticScore:
    """What the head says of a picture's embedding; about 1 to 10 for LAION's."""

    clip: Clip
    head: AestheticHead

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        return self.head(self.clip.of_pictures(images))


def clip_fit(folder: str) -> Reward:
    """CLIP's own logit of picture and prompt, as CLIPModel computes it."""
    clip = Clip(folder)
    return Reward(f"clip:{clip.folder.name}", "pictures that fit their prompt, to CLIP", ClipScore(clip, True), True)


def pickscore(folder: str) -> Reward:
    """PickScore: the logit (section 3 of the paper; about 20 for ordinary pictures)."""
    clip = Clip(folder)
    return Reward(f"pickscore:{clip.folder.name}", "what people picked for a prompt", ClipScore(clip, True), True)


def hpsv2(folder: str) -> Reward:
    """HPSv2: the cosine, without the logit scale, as its authors' code reports it (about .28)."""
    clip = Clip(folder)
    return Reward(f"hpsv2:{clip.folder.name}", "what people preferred for a prompt", ClipScore(clip, False), True)


def aesthetic(folder: str) -> Reward:
    """LAION's aesthetic score."""
    clip = Clip(folder, text=False)
    head = AestheticHead.read(clip.folder, clip.width)
    return Reward(
        f"aesthetic:{clip.folder.name}", "pictures that people rated beautiful", AestheticScore(clip, head), True
    )


LOADERS: dict[str, Callable[[str], Reward]] = {
    "clip": clip_fit,
    "pickscore": pickscore,
    "hpsv2": hpsv2,
    "aesthetic": aesthetic,
}
"""By the kind that stands before the colon; each raises D3POError as `Clip` does."""
