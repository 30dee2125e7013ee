"""Prompts are read from what A1111, Forge and ComfyUI wrote into pictures, and from captions beside them."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from d3po_core.errors import D3POError
from d3po_core.importing import read_source
from d3po_core.importing.captions import Noticed, read_prompts
from d3po_core.importing.metadata import parse_parameters
from tests.importing.test_graphs import graph

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"


HIRES = 'Steps: 30, Sampler: DPM++ 2M, CFG scale: 5, Hires prompt: "a fox,\\nin snow", Lora hashes: "ink: 2f1a"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red fox", ("a red fox", "")),
        (f"a red fox\n{SETTINGS}", ("a red fox", "")),
        (f"a red fox\nNegative prompt: blurry\n{SETTINGS}", ("a red fox", "blurry")),
        (
            f"a fox,\nin snow\n\nat dawn\nNegative prompt: dull,\nugly\n{HIRES}",
            ("a fox,\nin snow\n\nat dawn", "dull,\nugly"),
        ),
        (f"a fox\r\nNegative prompt: dull\r\n{SETTINGS}", ("a fox", "dull")),
        (f"Negative prompt: blurry\n{SETTINGS}", ("", "blurry")),
        (SETTINGS, ("", "")),
        (f"(a fox:1.2), [day:night:8] BREAK <lora:ink_v2:0.8>\n{SETTINGS}", ("(a fox:1.2), [day:night:8] BREAK", "")),
        (f"<lora:ink:1:lbw=0,1> a fox <hypernet:x:0.5> sits\n{SETTINGS}", ("a fox  sits", "")),
        (f"a fox, Steps: 20, not settings\n{SETTINGS}", ("a fox, Steps: 20, not settings", "")),
        (f"Steps: 9, leading up to a temple\n{SETTINGS}", ("Steps: 9, leading up to a temple", "")),
        (f"a fox\nNegative prompt: blurry\n{SETTINGS}\nTemplate: a {{fox|cat}}", ("a fox", "blurry")),
        ("a sign that says Negative prompt: none", ("a sign that says Negative prompt: none", "")),
        ("", ("", "")),
    ],
)
def test_parameters(text: str, expected: tuple[str, str]) -> None:
    assert parse_parameters(text) == expected


def lines() -> st.SearchStrategy[str]:
    """A prompt of one or more lines that nobody could take for something else."""
    line = st.text(st.characters(exclude_characters="\r\n<>", exclude_categories=["Cs"]), max_size=30)
    plain = line.filter(lambda text: not text.strip().startswith(("Negative prompt:", "Steps:")))
    return st.lists(plain, max_size=4).map("\n".join)


@given(lines(), lines(), st.sampled_from([SETTINGS, HIRES]))
def test_parameters_give_back_what_was_written(prompt: str, negative: str, settings: str) -> None:
    text = prompt + (f"\nNegative prompt: {negative}" if negative else "") + f"\n{settings}"
    assert parse_parameters(text.strip()) == (prompt.strip(), negative.strip())


def commented(comment: bytes) -> bytes:
    """EXIF as cameras lay it out: one entry that leads to the EXIF block, and in that one user comment."""
    pointer = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    block = struct.pack("<HHHIII", 1, 0x9286, 7, len(comment), 44, 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + pointer + block + comment


def picture(path: Path, *, exif: Image.Exif | bytes | None = None, **chunks: str) -> Path:
    image, info = Image.new("RGB", (8, 8)), PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    image.save(path, **({"pnginfo": info} if chunks else {}), **({"exif": exif} if exif else {}))
    return path


TOLD = f"a red fox, 赤い狐\nNegative prompt: blurry\n{SETTINGS}"


def test_a_png_of_a1111(tmp_path: Path) -> None:
    assert read_prompts(picture(tmp_path / "a.png", parameters=TOLD)) == ("a red fox, 赤い狐", "blurry")


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TOLD.encode("utf-16-be"),
        b"UNICODE\0" + TOLD.encode("utf-16-le"),
        b"ASCII\0\0\0" + TOLD.encode(),
        bytes(8) + TOLD.encode() + b"\0",
    ],
)
def test_exif_of_a1111(tmp_path: Path, name: str, comment: bytes) -> None:
    assert read_prompts(picture(tmp_path / name, exif=commented(comment))) == ("a red fox, 赤い狐", "blurry")


def test_pictures_of_comfyui(tmp_path: Path) -> None:
    told = json.dumps(graph())
    assert read_prompts(picture(tmp_path / "a.png", prompt=told, workflow="{}")) == ("a glass bottle", "watermark")
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "workflow:{}", f"prompt:{told}"
    assert read_prompts(picture(tmp_path / "a.webp", exif=exif)) == ("a glass bottle", "watermark")


def test_parameters_come_before_the_graph_and_a_text_beside_before_both(tmp_path: Path) -> None:
    both = picture(tmp_path / "a.png", prompt=json.dumps(graph()), parameters=TOLD)
    assert read_prompts(both)[0] == "a red fox, 赤い狐"
    (tmp_path / "a.txt").write_text("\ufeffa fox of mine\n", encoding="utf-8")
    assert read_prompts(both) == ("a fox of mine", "")
    (tmp_path / "a.txt").write_text(TOLD, encoding="utf-8")  # as A1111 writes them
    assert read_prompts(both) == ("a red fox, 赤い狐", "blurry")


def test_a_picture_that_says_nothing_and_texts_that_cannot_be_read(tmp_path: Path) -> None:
    plain = picture(tmp_path / "a.png", Comment="made with love")
    assert read_prompts(plain) == ("", "")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(D3POError, match=r"a\.txt cannot be read as text. Save it as UTF-8"):
        read_prompts(plain)


def test_an_empty_caption_hides_no_other(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.CAPTION").write_text("a fox in capitals")
    assert read_prompts(image) == ("a fox in capitals", "")
    (tmp_path / "a.caption").unlink(missing_ok=True)
    (tmp_path / "a.txt").write_text("a fox in small letters")
    assert read_prompts(image)[0] == "a fox in small letters"


@pytest.mark.parametrize("text", [b"{", b"[1", b"\0\1\2\3\0\0", b"[" * 100_000])
def test_a_damaged_json_leaves_no_picture_out(tmp_path: Path, text: bytes) -> None:
    for side in ("winners", "losers"):
        (tmp_path / side).mkdir()
        picture(tmp_path / side / "a.png", parameters=f"a fox of the {side}")
        (tmp_path / side / "a.json").write_bytes(text)
    judged = read_source(tmp_path)
    assert sorted(group.prompt for group in judged.groups) == ["a fox of the losers", "a fox of the winners"]
    assert not judged.left_out
    assert "Captions that could not be read as JSON were passed over: a.json." in judged.notes
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"images": ["winners/a.png"], "scores": [1]}')
    assert "a.json" in " ".join(read_source(lines).notes) and not read_source(lines).left_out


def test_a_json_that_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, noticed = picture(tmp_path / "a.png", parameters="a fox"), Noticed()
    (tmp_path / "a.json").write_text('{"prompt": "a hare"}')
    read = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path.suffix == ".json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    assert read_prompts(image, noticed) == ("a fox", "") and noticed.damaged == ["a.json"]
