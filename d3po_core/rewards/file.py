"""A judge as one file: safetensors, with its `JudgeFacts` as JSON in the metadata."""

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
"""Largest difference between stored and present features, in standard deviations; other machines round differently."""


def save_judge(fitted: Judge, path: Path | str) -> Path:
    """Write a judge to a file, atomically; a file of that name is replaced.

    Raises:
        D3POError: the judge is no better than chance, or the file cannot be written.
    """
    fitted.reward()  # raises if it is no better than chance
    head = fitted.head
    tensors = {"mean": head.mean, "std": head.std, "weights": head.weights, "probe": _probe(head.features)}
    metadata = {"form": FORM, "version": VERSION, "facts": json.dumps(dataclasses.asdict(fitted.facts))}
    files.replace(Path(path), files.pack(tensors, metadata))
    return Path(path)


@torch.inference_mode(False)  # as in `get_reward`
def load_judge(path: Path | str) -> Judge:
    """Read a judge from a file.

    Raises:
        D3POError: the file is missing, damaged or of another kind; its features cannot be loaded any more, or have
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
    present = _probe(head.features)
    if present.shape != probe.shape or float(((present - probe) / head.std).abs().max()) > PROBE_TOLERANCE:
        raise D3POError(
            f"The features that {path.name} was fitted on ({facts.features}) are not what they were.",
            "Put the folder's earlier files back, or fit it again with Reward From Picks.",
        )
    return Judge(head, facts)


def load_judge_reward(path: str) -> Reward:
    """Return the reward of the judge in a file; raises as `load_judge` and `Judge.reward` do."""
    return dataclasses.replace(load_judge(path).reward(), name=f"picks:{Path(path).name}")


@torch.no_grad()
def _probe(features: Features) -> Tensor:
    """Return the features (F,) of one fixed image, waves of colour, by which changed features are noticed."""
    place = torch.arange(64) / 64
    waves = [(6 * place[:, None] * k + 9 * place * (3 - k) + k).sin() for k in range(3)]
    return features(torch.stack(waves)[None] / 2 + 0.5)[0].double().cpu()
