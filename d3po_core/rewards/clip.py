"""Rewards from CLIP models (Radford et al. 2021, arXiv 2103.00020), from folders as transformers saves them:

CLIP itself, PickScore, HPSv2, and LAION's aesthetic score.

LAION's aesthetic head works on CLIP embeddings of length 1 (Schuhmann et al. 2022, arXiv 2210.08402, section on subsets
by aesthetics): one linear layer (V1), or five (V2; "linearMSE" without, "reluMSE" with ReLU between them).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import D3POError
from ..textfiles import decode
from .clip_images import ImagePreparation
from .reward import Reward

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPVisionModelWithProjection, PreTrainedTokenizerBase


IMAGE_AND_TEXT = ("clip",)
IMAGE_ONLY = ("clip_vision_model", "aesthetics_predictor")
"""Names in config.json of models of images and text, and of models of images alone."""
BATCH = 16
"""Images in one forward pass."""
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Sets of files, of which one is enough."""
CHOOSE = "Choose a folder with config.json, model.safetensors and preprocessor_config.json, as transformers saves it."


class Clip:
    """A frozen CLIP in float32. It moves to the device of the images that it embeds.

    Args:
        folder: as transformers saves a model.
        text: whether prompts are embedded too.

    Raises:
        D3POError: there is no such folder, it holds another kind of model or is incomplete, or its weights are not
            safetensors.
    """

    def __init__(self, folder: str | Path, text: bool = True) -> None:
        self.folder = Path(os.path.expanduser(folder))
        kind = _kind(self.folder, text)
        _check_weights(self.folder)
        self.prepare = ImagePreparation.read(self.folder)
        self.model = _load(self.folder, kind)
        self.tokenizer = _tokenizer(self.folder) if text else None

    def embed_images(self, images: Tensor) -> Tensor:
        """Return embeddings (B, F) of length 1 of images (B, 3, H, W) in [0, 1], with gradient."""
        with torch.inference_mode(False):  # tensors made inside it never allow gradients
            self.model.to(images.device)
        parts = []
        for part in images.float().split(BATCH):
            pooled = self.model.vision_model(pixel_values=self.prepare(part)).pooler_output
            parts.append(self.model.visual_projection(pooled))
        return F.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Return embeddings (B, F) of length 1 of B texts; the end of a text that is too long is cut off."""
        assert self.tokenizer is not None
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        tokens = {name: tokens[name].to(self.model.logit_scale.device) for name in ("input_ids", "attention_mask")}
        return F.normalize(self.model.text_projection(self.model.text_model(**tokens).pooler_output), dim=1)

    def cosines(self, images: Tensor, texts: list[str]) -> Tensor:
        """Return the cosine of each image's embedding and its text's, (B,)."""
        return (self.embed_images(images) * self.embed_texts(texts)).sum(1)

    @property
    def width(self) -> int:
        """Return the length F of an embedding."""
        return int(self.model.visual_projection.out_features)

    @property
    def scale(self) -> Tensor:
        """Return the factor that turns cosines into logits, ()."""
        return self.model.logit_scale.detach().exp()


def _kind(folder: Path, text: bool) -> str:
    """Return the kind of model that config.json names; raises D3POError if it is not a CLIP, or lacks a needed text."""
    path = folder / "config.json"
    if not path.is_file():
        raise D3POError(f"{folder} is not a CLIP folder: it has no config.json.", CHOOSE)
    try:
        config = json.loads(decode(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise D3POError(f"{path} cannot be read ({error}).", "Use another copy of the folder.") from error
    kind = str(config.get("model_type") or config.get("_class_name") or "something unknown")
    if kind in IMAGE_AND_TEXT or (kind in IMAGE_ONLY and not text):
        return kind
    if kind in IMAGE_ONLY:
        raise D3POError(
            f"{folder} holds a CLIP for pictures alone, and this reward reads the prompt too.",
            "Choose the folder of the whole CLIP model.",
        )
    raise D3POError(f"{folder} holds {kind}, not a CLIP for pictures{' and text' if text else ''}.", CHOOSE)


def _check_weights(folder: Path) -> None:
    """Raise D3POError unless the folder has weights as safetensors."""
    if any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return
    if pickle := _pickle(folder, ".bin", ".pt", ".pth", ".ckpt"):
        raise D3POError(
            f"The weights in {folder} are a pickle ({pickle}), which can run any program and is never read.",
            "Save the model as safetensors: model.save_pretrained(folder, safe_serialization=True).",
        )
    raise D3POError(f"{folder} has no model.safetensors.", CHOOSE)


def _pickle(folder: Path, *suffixes: str) -> str:
    """Name the first file in a folder that may be a pickle, to say that it is not read; "" if there is none."""
    return next((path.name for path in sorted(folder.iterdir()) if path.suffix in suffixes), "")


def _load(folder: Path, kind: str) -> CLIPModel | CLIPVisionModelWithProjection:
    """Return the frozen model in float32; raises D3POError if it cannot be loaded or tensors are missing."""
    try:
        from transformers import CLIPModel, CLIPVisionModelWithProjection
    except ImportError as error:
        raise D3POError("CLIP-type rewards need transformers, which is not installed.", "Install it.") from error
    # Not AutoModel: for "aesthetics_predictor" it would run the Python code published with the head.
    loader = CLIPModel if kind in IMAGE_AND_TEXT else CLIPVisionModelWithProjection
    try:
        model, loading_info = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # the library raises many kinds for damaged files
        reason = str(error).strip().partition("\n")[0]
        raise D3POError(f"The CLIP in {folder} cannot be loaded ({reason}).", "Use another copy of it.") from error
    missing = sorted(loading_info["missing_keys"])
    if missing:  # the library fills them with random numbers
        raise D3POError(
            f"The weights in {folder} are not those of the CLIP that config.json describes: {missing[0]} is missing.",
            CHOOSE,
        )
    return model.float().eval().requires_grad_(False)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the folder's tokenizer; raises D3POError if there is none that can be read."""
    from transformers import AutoTokenizer

    try:
        if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
            raise FileNotFoundError  # newer versions of the library would make one with an empty vocabulary
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise D3POError(
            f"The CLIP in {folder} has no tokenizer that can be read.",
            "Put the tokenizer files of the CLIP that it was made from beside it (tokenizer.json, or vocab.json and "
            "merges.txt).",
        ) from error


def clip_score(kind: str, likes: str, scaled: bool, folder: str) -> Reward:
    """Load a CLIP that scores by the cosine of an image's embedding and its prompt's.

    Args:
        kind: the word before the colon of a spec.
        likes: as in `Reward`.
        scaled: whether the cosine is multiplied by the model's logit scale, as CLIPModel does.
        folder: the CLIP's.
    """
    clip = Clip(folder)

    def score(images: Tensor, prompts: list[str]) -> Tensor:
        cosines = clip.cosines(images, prompts)
        return cosines * clip.scale if scaled else cosines

    return Reward(f"{kind}:{clip.folder.name}", likes, score, True)


def aesthetic(folder: str) -> Reward:
    """Load LAION's aesthetic score, roughly from 1 to 10: a CLIP of images with an aesthetic head."""
    clip = Clip(folder, text=False)
    head = AestheticHead.read(clip.folder, clip.width)

    def score(images: Tensor, prompts: list[str]) -> Tensor:
        return head(clip.embed_images(images))

    return Reward(f"aesthetic:{clip.folder.name}", "pictures that people rated beautiful", score, True)


LOADERS: dict[str, Callable[[str], Reward]] = {
    "clip": partial(clip_score, "clip", "pictures that fit their prompt, to CLIP", True),
    # PickScore (Kirstain et al. 2023, arXiv 2305.01569, section 3) is the logit, near 20 for ordinary images.
    "pickscore": partial(clip_score, "pickscore", "what people picked for a prompt", True),
    # HPSv2 (Wu et al. 2023, arXiv 2306.09341) is the cosine without the logit scale, as in its code, near 0.28.
    "hpsv2": partial(clip_score, "hpsv2", "what people preferred for a prompt", False),
    "aesthetic": aesthetic,
}
"""Functions that load a reward from a folder, by the word before the colon of a spec. Each raises as `Clip` does."""

PLACES = {(0,): False, (0, 2, 4, 6, 7): False, (0, 3, 6, 9, 11): True}
"""The known places of linear layers, and whether ReLU follows each but the last."""
NAME = re.compile(r"(?:.*\b(?:layers|predictor|linear|head)\.)?(?:(\d+)\.)?(weight|bias)")
OF_CLIP = ("vision_model.", "text_model.")


class AestheticHead:
    """Frozen linear layers, used on the device of the embeddings.

    Args:
        layers: weight (out, in) and bias (out,) of each layer.
        relu: whether ReLU follows each but the last.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], relu: bool) -> None:
        self.layers, self.relu = layers, relu

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the scores (B,) of embeddings (B, F)."""
        x = embeddings
        for number, (weight, bias) in enumerate(self.layers):
            x = (x.relu() if self.relu and number else x) @ weight.to(x).T + bias.to(x)
        return x[:, 0]

    @classmethod
    def read(cls, folder: Path, width: int) -> AestheticHead:
        """Read the head from a CLIP's folder, from a file of its own before the model's weights.

        Args:
            folder: the CLIP's.
            width: length F of its embeddings.

        Raises:
            D3POError: there is no head, or one of another form, or for embeddings of another length.
        """
        files = sorted(folder.glob("*.safetensors"), key=lambda path: (path.name.startswith("model"), path.name))
        for path in files:
            tensors = _tensors(path)
            if tensors:
                return cls._of(tensors, path, width)
        pickle = _pickle(folder, ".pt", ".pth")
        raise D3POError(
            f"{folder} has no aesthetic head" + (f" but a pickle ({pickle}), which is never read." if pickle else "."),
            "Save the head's state_dict as safetensors in that folder.",
        )

    @classmethod
    def _of(cls, tensors: dict[tuple[int, str], Tensor], path: Path, width: int) -> AestheticHead:
        places = tuple(sorted({place for place, _ in tensors}))
        if places not in PLACES or any((place, "bias") not in tensors for place in places):
            raise D3POError(
                f"The aesthetic head in {path.name} has layers at {places}, which is no form of LAION's.",
                "Use one linear layer, or LAION's five.",
            )
        if tensors[0, "weight"].shape[1] != width:
            raise D3POError(
                f"The aesthetic head in {path.name} is for embeddings of {tensors[0, 'weight'].shape[1]} numbers, "
                f"and this CLIP's have {width}.",
                "Use the head with the CLIP that it was made for.",
            )
        return cls([(tensors[place, "weight"], tensors[place, "bias"]) for place in places], PLACES[places])


def _tensors(path: Path) -> dict[tuple[int, str], Tensor]:
    """Return the head's tensors in a file by (place, name), in float32; an empty dict if it holds no head."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.startswith(OF_CLIP)]  # noqa: SIM118
            known = {name: match for name in names if (match := NAME.fullmatch(name))}
            return {(int(match[1] or 0), match[2]): file.get_tensor(name).float() for name, match in known.items()}
    except (SafetensorError, OSError) as error:
        raise D3POError(f"{path.name} is damaged or no safetensors file ({error}).", "Use another copy.") from error
