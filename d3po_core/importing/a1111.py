"""The text that AUTOMATIC1111's web UI and Forge write into pictures, and into a .txt beside them if asked to:

    a red fox, <lora:ink:0.8>
    in the snow
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512

Both prompts may span lines, and either may be missing. The order follows the web UI's `create_infotext` and what it
reads back in `parse_generation_parameters`.
"""

from __future__ import annotations

import re

NEGATIVE = re.compile(r"^[ \t]*Negative prompt:", re.M)
SETTINGS = re.compile(r"^Steps: \d+, \w", re.M)
EXTRA_NETWORK = re.compile(r"<\w+:[^>]+>")
"""`<lora:name:weight>` and the like choose networks; the web UI takes them out before the prompt is encoded."""


def parse_parameters(text: str) -> tuple[str, str]:
    """Prompt and negative prompt, without settings and extra networks. A text of no such form is a prompt."""
    text = text.replace("\r\n", "\n")
    settings = list(SETTINGS.finditer(text))
    if settings:
        text = text[: settings[-1].start()]
    negative = NEGATIVE.search(text)
    prompt, rest = (text[: negative.start()], text[negative.end() :]) if negative else (text, "")
    return _plain(prompt), _plain(rest)


def _plain(prompt: str) -> str:
    return EXTRA_NETWORK.sub("", prompt).strip()
