"""A reward from picks as one file: safetensors, with all that is known of it as JSON in the metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from torch import Tensor

from ..errors import D3POError
from ..run import files
from .features import Features, get_features
from .judge import Head, Judge, JudgeFacts
from .reward import Reward

FORM = "d3po.reward_from_picks"
VERSION = "1"
PROBE_TOLERANCE = 0.02
"""Of a feature's standard deviation: how far features may be from those noted, by another machine's rounding."""


def save_judge(fitted: Judge, path: Path | str) -> Path:
    """Write the file, whole or not at all; one of that name is replaced.

    Raises:
        D3POError: the head is no better than chance, or the file cannot be written.
    """
    fitted.reward()
    head = fitted.head
    tensors = {"mean": head.mean, "std": head.std, "weights": head.weights, "probe": _probe(head.features)}
    metadata = {"form": FORM, "version": VERSION, "facts": json.dumps(dataclasses.asdict(fitted.facts))}
    files.replace(Path(path), files.pack(tensors, metadata))
    return Path(path)


@torch.inference_mode(False)  # see `get_reward`
def load_judge(path: Path | str) -> Judge:
    """What was saved.

    Raises:
        D3POError: the file is missing, damaged or another kind of file; its features cannot be had any more, or have
            changed since.
    """
    path = Path(os.path.expanduser(path))
    tensors, metadata = files.read(path, "The reward from picks", "Fit it again with Reward From Picks.")
    if metadata.get("form") != FORM or metadata.get("version") != VERSION:
        raise D3POError(
            f"{path.name} is not a reward from picks, or one of another version of D3PO.",
            "Choose a file that Reward From Picks wrote.",
        )
    try:
        facts = JudgeFacts(**json.loads(metadata["facts"]))
        head = Head(get_features(facts.features), tensors["mean"], tensors["std"], tensors["weights"])
        probe = tensors["probe"]
    except (KeyError, TypeError, ValueError) as error:
        raise D3POError(f"{path.name} is incomplete ({error}).", "Fit it again with Reward From Picks.") from error
    now = _probe(head.features)
    if now.shape != probe.shape or float(((now - probe) / head.std).abs().max()) > PROBE_TOLERANCE:
        raise D3POError(
            f"The features that {path.name} was fitted on ({facts.features}) are not what they were.",
            "Put the folder's earlier files back, or fit it again with Reward From Picks.",
        )
    return Judge(head, facts)


def load_judge_reward(path: str) -> Reward:
    """The reward in a file; raises as `load` and `FromPicks.reward` do."""
    return dataclasses.replace(load_judge(path).reward(), name=f"picks:{Path(path).name}")


@torch.no_grad()
def _probe(features: Features) -> Tensor:
    """Features of a picture that is always the same: waves of colour, (F,)."""
    place = torch.arange(64) / 64
    waves = [(6 * place[:, None] * k + 9 * place * (3 - k) + k).sin() for k in range(3)]
    return features(torch.stack(waves)[None] / 2 + 0.5)[0].double().cpu()
