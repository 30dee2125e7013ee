"""Names of A1111's and Forge's textual-inversion embeddings: words of a prompt, which no other program obeys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.importing import import_pictures
from d3po_core.importing.captions import Noticed, read_prompts
from d3po_core.importing.into_run import words_of
from d3po_core.models import DiffusersModel
from tests.run_helpers import make_run

TEXT = "a fox, EasyNegative style\nNegative prompt: bad-hands-5, blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, {}"
A1111 = 'TI hashes: "easynegative: c74b4e810b03, bad-hands-5: aa7651be154c, unused: 66a7279a88dd", Version: v1.10.1'
FORGE = 'Model: tiny, TI: "easynegative, bad-hands-5, unused", Version: f2.0'
ALL = {"easynegative", "bad-hands-5", "unused"}


def picture(path: Path, text: str, colour: int = 0) -> Path:
    """Save an image with A1111's text in it."""
    info = PngInfo()
    info.add_text("parameters", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (colour, 0, 0)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        *[
            (A1111, ALL),
            (FORGE, ALL),
            ("TI: easynegative, Version: f2.0", {"easynegative"}),
            ("Version: v1.10.1", set()),
        ],
        ("TI hashes: easynegative: c74b4e810b03", {"easynegative"}),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_embeddings_are_noticed_beside_the_prompts(
    tmp_path: Path, settings: str, names: set[str], beside: bool
) -> None:
    noticed, text = Noticed(), TEXT.format(settings)
    path = picture(tmp_path / "a.png", "" if beside else text)
    if beside:
        path.with_suffix(".txt").write_text(text)
    assert read_prompts(path, noticed) == ("a fox, EasyNegative style", "bad-hands-5, blurry")
    assert noticed.embeddings == names


def test_a_prompt_that_speaks_of_them_names_none(tmp_path: Path) -> None:
    noticed = Noticed()
    assert read_prompts(picture(tmp_path / "a.png", "a sign that says TI: easynegative"), noticed)[0]
    assert noticed.embeddings == set()


def test_only_words_of_the_prompts_are_named() -> None:
    texts = ["a fox, EasyNegative style", "(bad-hands-5:1.2), unusedly, 5", ""]
    assert words_of(texts, [*ALL, "fo", "5)"]) == ["bad-hands-5", "easynegative"]


class Reader:
    """An encoder that reads as a pipeline does."""

    unit = 8

    def encode(self, prompts: list[str], negative: str = "") -> list[dict[str, torch.Tensor]]:
        return [{"text": torch.zeros(1, 2)} for _ in prompts]

    def plain_words(self, prompts: Iterable[str], embeddings: Sequence[str] = ()) -> str:
        return DiffusersModel.plain_words(prompts, embeddings)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, ::8, ::8]


def test_an_import_names_them_once(tmp_path: Path) -> None:
    for number, (side, settings) in enumerate([("winners", A1111), ("winners", FORGE), ("losers", A1111)]):
        picture(tmp_path / side / f"{number}.png", TEXT.format(settings), 50 * number)
    *_, done = import_pictures(make_run(tmp_path / "run"), tmp_path, Reader())
    assert done.added == 3
    assert done.notes == ("Read as plain words here, unlike in A1111 or ComfyUI: bad-hands-5, easynegative.",)
