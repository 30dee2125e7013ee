"""The embedded model's small CLIP vocabulary: a token for each word of the captions, characters for everything else."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from d3po_core.embedded import COLOURS, KINDS, SKIES

LENGTH = 16  # tokens in a prompt, with start and end
START, END = "<|startoftext|>", "<|endoftext|>"
OTHER_WORDS = "a an the in of and with flower picture garden , ."
PARAPHRASES = ("{colour} {kind} {sky}", "the {colour} {kind} {sky}", "{sky}, a {colour} {kind}",
               "a picture of a {colour} {kind} {sky}")  # fmt: skip


def byte_letters() -> list[str]:
    """Return the 256 printable characters that stand for bytes in CLIP's byte-pair files."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def merges_for(words: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges, most frequent first, by which every word becomes a single token."""
    parts = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(part) > 1 for part in parts):
        pairs = Counter(pair for part in parts for pair in pairwise(part))
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for part in parts:
            i = 0
            while i < len(part) - 1:
                if (part[i], part[i + 1]) == best:
                    part[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json and merges.txt to a folder, and the tokenizer that is made from them; return the tokenizer."""
    words = sorted(set(f"{' '.join(KINDS)} {' '.join(COLOURS)} {' '.join(SKIES)} {OTHER_WORDS}".split()))
    letters, merges = byte_letters(), merges_for(words)
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(m) for m in merges), START, END]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(
        str(folder), model_max_length=LENGTH, bos_token=START, eos_token=END, unk_token=END, pad_token=END
    )
    tokenizer.save_pretrained(str(folder))
    return tokenizer
