"""Pixels as a viewer shows them, against values that follow from the formats."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from d3po_core.errors import D3POError
from d3po_core.importing.captions import read_prompts
from d3po_core.importing.pixels import MAX_TEXT, PNG, fingerprint, open_image, read_rgb


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(path: Path, *chunks: bytes) -> Path:
    """A PNG file with chunks of text after its header."""
    Image.new("RGB", (8, 8), "red").save(path)
    data = path.read_bytes()
    header = len(PNG) + 25
    path.write_bytes(data[:header] + b"".join(chunks) + data[header:])
    return path


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (4, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "ramp.png"))[..., 0], np.tile(np.arange(256), (4, 1)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    """Whatever colour is hidden under it."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[1, 0] = (90, 90, 90, 255), (90, 90, 90, 0), (10, 10, 10, 0)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.quantize(4)
    image.convert(mode).save(tmp_path / "a.png")
    seen = np.asarray(read_rgb(tmp_path / "a.png"))
    assert abs(int(seen[0, 0, 0]) - 90) <= 1
    assert (seen[0, 1] == 255).all() and (seen[1] == 255).all()


def test_a_transparent_level_of_sixteen_bits_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    header = len(PNG) + 25
    (tmp_path / "a.png").write_bytes(data[:header] + chunk(b"tRNS", struct.pack(">H", 40_000)) + data[header:])
    assert read_rgb(tmp_path / "plain.png").getpixel((0, 0)) == (156, 156, 156)
    assert read_rgb(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert np.asarray(read_rgb(tmp_path / "a.png"))[0, 0].tolist() == pytest.approx([127] * 3, abs=1)


def test_alpha_tells_images_apart(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(tmp_path / "a.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "b.png")
    assert fingerprint(tmp_path / "a.png") != fingerprint(tmp_path / "b.png")


def test_a_profile_is_obeyed(tmp_path: Path) -> None:
    """A profile whose red and green are swapped shows green where the file says red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {name: profile.index(name) for name in (b"rXYZ", b"gXYZ")}
    swapped = bytearray(profile)
    swapped[tags[b"rXYZ"] : tags[b"rXYZ"] + 4], swapped[tags[b"gXYZ"] : tags[b"gXYZ"] + 4] = b"gXYZ", b"rXYZ"
    text = swapped.index("sRGB".encode("utf-16-be"))
    swapped[text : text + 8] = "abcd".encode("utf-16-be")
    Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "a.png", icc_profile=bytes(swapped))
    red, green, _ = np.asarray(read_rgb(tmp_path / "a.png"))[0, 0]
    assert green > 200 and red < 60


def test_a_damaged_profile_and_that_of_srgb_change_nothing(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ramp.save(tmp_path / "plain.png")
    for name, profile in (("damaged", b"no profile"), ("srgb", srgb)):
        ramp.save(tmp_path / f"{name}.png", icc_profile=profile)
        assert fingerprint(tmp_path / f"{name}.png") == fingerprint(tmp_path / "plain.png")


def test_cmyk_is_shown_as_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = np.asarray(read_rgb(tmp_path / "a.jpg"))[0, 0]
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (b"tEXt", "紅葉の湖".encode(), "紅葉の湖"),  # against the specification, and usual
        (b"tEXt", "café".encode("latin-1"), "café"),
        (b"zTXt", b"\0" + zlib.compress(b"a fox"), "a fox"),
        (b"iTXt", b"\0\0\0\0" + "einen Fuchs, 狐".encode(), "einen Fuchs, 狐"),
        (b"iTXt", b"\1\0en\0\0" + zlib.compress("狐".encode()), "狐"),
    ],
)
def test_texts_of_every_kind(tmp_path: Path, kind: bytes, data: bytes, expected: str) -> None:
    path = with_chunks(tmp_path / "a.png", chunk(kind, b"parameters\0" + data))
    assert read_prompts(path) == (expected, "")


def test_a_long_text_hides_neither_the_image_nor_the_others(tmp_path: Path) -> None:
    long = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000))
    bomb = chunk(b"zTXt", b"more\0\0" + zlib.compress(b"x" * (MAX_TEXT + 1)))
    many = b"".join(chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(b"x" * (MAX_TEXT // 4))) for i in range(8))
    cut = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"half a prompt")[:-8])
    damaged = chunk(b"zTXt", b"odd\0\0no zlib") + chunk(b"tEXt", b"no end") + chunk(b"iTXt", b"short\0")
    path = with_chunks(tmp_path / "a.png", long, bomb, damaged, cut, chunk(b"tEXt", b"parameters\0a red fox"), many)
    assert read_prompts(path) == ("a red fox", "")
    assert read_rgb(path).getpixel((0, 0)) == (255, 0, 0)
    with open_image(path) as image:
        assert len(image.info["workflow"]) == 3_000_000 and "more" not in image.info
        assert sum(len(text) for text in image.info.values() if isinstance(text, str)) <= MAX_TEXT


def test_exif_in_a_png_is_kept(tmp_path: Path) -> None:
    exif, info = Image.Exif(), PngInfo()
    exif[0x0112] = 6  # turned
    info.add_text("parameters", "a fox")
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png", exif=exif, pnginfo=info)
    assert read_rgb(tmp_path / "a.png").size == (4, 8)


@pytest.mark.parametrize("cut", [20, 60])
def test_a_cut_file_is_reported(tmp_path: Path, cut: int) -> None:
    path = with_chunks(tmp_path / "a.png", chunk(b"tEXt", b"parameters\0a red fox"))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(D3POError, match="not a picture that can be read"):
        read_rgb(path)
