"""One zip to give away: the LoRA, a before/after image, a card. Nothing personal is in it unless asked for."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from PIL import Image

from ..errors import D3POError
from ..evaluation.compare import recommended_strength_of
from ..lora import load_lora, unused_path
from ..lora.file import hashes
from ..run import Round, Run, files
from ..run.blind_checks import strip_side

NEUTRAL = "taste"
"""Name of the LoRA where the run's own name is left out."""
IMPERSONAL = (
    *("ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_base_model_version", "ss_v2", "ss_sd_model_name"),
    *("modelspec.sai_model_spec", "modelspec.architecture", "modelspec.implementation", "modelspec.prediction_type"),
    *("modelspec.resolution", "d3po_version", "d3po_round", "d3po_strength", "d3po_groups"),
)
"""Keys of metadata that programs need and that identify no person; the base model's name is kept on purpose."""


def share(
    run: Run, path: Path, *, with_name: bool = False, with_prompts: bool = False, with_picks: bool = False
) -> Path:
    """Write the zip of a run's current policy, and return its path.

    Args:
        run: trained at least once.
        path: of the zip; it is replaced if it exists.
        with_name: name the LoRA after the run.
        with_prompts, with_picks: add these.

    Raises:
        D3POError: nothing was taught yet, the LoRA file is missing or damaged, or the zip cannot be written.
    """
    policy = run.rounds.current_policy()
    taught, lora = run.rounds.maker(policy), run.rounds.lora(policy)
    if taught is None or lora is None:
        raise D3POError("This taste has not been taught yet, so there is nothing to share.", "Pick and teach first.")
    name = run.name if with_name else NEUTRAL
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(unused_path(Path(), name).name, anonymous(lora, name))
        sheet = _strip(run, taught)
        if sheet:
            archive.writestr("before-after.png", files.png(sheet))
        archive.writestr(
            "README.md", card(run, taught, name, run.previews.prompts(taught.number) if with_prompts else [])
        )
        if with_prompts:
            archive.writestr("prompts.txt", "".join(f"{prompt.text}\n" for prompt in run.prompts.all()))
        if with_picks:
            _, past = run.history.page(0, 10**9)
            rows = [
                {"group": p.number, "kind": p.kind, "order": list(p.order), "flags": p.flags, "masks": p.masks}
                for p in past
            ]
            archive.writestr("picks.json", json.dumps(rows))
    files.replace(path, content.getvalue())
    return path


def anonymous(lora: Path, name: str) -> bytes:
    """Return a LoRA file's content under another name, without metadata that could identify a person.

    Raises:
        D3POError: the file is missing or damaged.
    """
    from safetensors.torch import save

    tensors, metadata = load_lora(lora)
    kept = {key: value for key, value in metadata.items() if key in IMPERSONAL}
    kept = {"format": "pt", **kept, "ss_output_name": name, "modelspec.title": name}
    return save(tensors, {**kept, **hashes(tensors, kept)})


def card(run: Run, taught: Round, name: str, prompts: list[str]) -> str:
    """Write the card, in Markdown, with what a stranger needs to use the LoRA."""
    summary = taught.summary
    lines = [
        f"# {name}",
        "",
        "A LoRA taught with D3PO: by picking favourites among pictures of one prompt.",
        "",
        f"- Base model: {run.model.get('name') or run.model.get('family', 'unknown')}",
        f"- Recommended strength: {recommended_strength_of(summary):g} (weaker is gentler)",
        f"- Picks: {run.picks.counts('').picks}",
    ]
    if summary.guessed_of:
        share = f"{summary.guessed / summary.guessed_of:.0%}"
        lines.append(f"- Predicted {share} of picks that it had not seen (chance: 50%)")
    if summary.prompt_kept is not None:
        lines.append(f"- Prompt kept: {summary.prompt_kept:.0%}, by the base model's own judgement")
    if prompts:
        lines += ["", "Rows of before-after.png:", "", *(f"{n}. {prompt}" for n, prompt in enumerate(prompts, 1))]
    return "\n".join(lines) + "\n"


def _strip(run: Run, taught: Round) -> Image.Image | None:
    """Draw a round's strip as one image: before training on the left, after it on the right."""
    sides = ("before", strip_side(taught.summary.lora_strength))
    count = len(run.previews.prompts(taught.number))
    if not count or not run.previews.has(taught.number, sides[1]):
        return None
    rows = [[Image.open(run.previews.image(taught.number, i, side)) for side in sides] for i in range(count)]
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (2 * width, count * height), "white")
    for i, row in enumerate(rows):
        for side, image in enumerate(row):
            sheet.paste(image, (side * width, i * height))
    return sheet
