"""A before/after picture: one row for each prompt, the original's images left, the tuned model's right."""

from __future__ import annotations

from PIL import Image, ImageDraw
from torch import Tensor

GAP, HEAD, SCALE_TO = 4, 18, 96


def to_image(pixels: Tensor) -> Image.Image:
    """One image (3, H, W) in [0, 1] as a picture."""
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def before_after(before: Tensor, after: Tensor, labels: tuple[str, str] = ("before", "after")) -> Image.Image:
    """Images (P, S, 3, H, W) of the same prompts and seeds, side by side."""
    prompts, seeds, _, height, width = before.shape
    scale = max(1, round(SCALE_TO / width))
    w, h = width * scale, height * scale
    half = seeds * (w + GAP)
    sheet = Image.new("RGB", (2 * half + 3 * GAP, prompts * (h + GAP) + HEAD + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for side, (images, label) in enumerate(zip((before, after), labels, strict=True)):
        left = GAP + side * (half + GAP)
        pen.text((left, 2), label, fill="black")
        for p in range(prompts):
            for s in range(seeds):
                tile = to_image(images[p, s]).resize((w, h), Image.Resampling.NEAREST)
                sheet.paste(tile, (left + s * (w + GAP), HEAD + p * (h + GAP)))
    return sheet
