"""Rewards on CLIP folders against transformers itself, on a tiny random CLIP; and what is no such folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from d3po_core.errors import D3POError
from d3po_core.rewards import get_reward
from d3po_core.rewards.clip import Clip
from d3po_core.rewards.clip_images import ImagePreparation
from tests.tiny_pipelines import MAX_TOKENS, tiny_clip, tiny_tokenizer, tiny_unet

try:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as ImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor as ImageProcessor

SIDE, WIDTH = 16, 12
PROMPTS = ["a red tulip", "a daisy by night, in the rain", "x" * 200]


def pictures(count: int = 3, height: int = 40, width: int = 52) -> Tensor:
    """Blobs of colour, each value one that a file can hold."""
    noise = torch.rand(count, 3, 5, 6, generator=torch.Generator().manual_seed(4))
    smooth = nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


def as_files(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(np.uint8((each * 255).round().permute(1, 2, 0))) for each in images]


def vision_config() -> CLIPVisionConfig:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return CLIPVisionConfig(**sizes, image_size=SIDE, patch_size=4, projection_dim=WIDTH, initializer_factor=3.0)


def tiny_model() -> CLIPModel:
    torch.manual_seed(0)
    text = CLIPTextConfig(**{**tiny_clip().config.to_dict(), "projection_dim": WIDTH})
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision_config().to_dict(),
        projection_dim=WIDTH,
        initializer_factor=3.0,
    )
    return CLIPModel(config).eval()


def processor(**settings: Any) -> Any:
    return ImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def logits(folder: Path, images: Tensor) -> Tensor:
    """What transformers says of each picture and its prompt, from files, by its own processor."""
    read = tiny_tokenizer()(PROMPTS, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    pixels = processor()(as_files(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return CLIPModel.from_pretrained(folder).eval()(**read, pixel_values=pixels).logits_per_image.diagonal()


# Preparing pictures


@pytest.mark.parametrize("size", [(40, 52), (52, 40), (16, 16), (9, 12), (64, 64), (33, 47)])
@pytest.mark.parametrize("resample", [2, 3])
def test_pictures_are_prepared_as_transformers_does(size, resample):
    images = pictures(2, *size)
    own = processor(resample=resample)
    prepared = ImagePreparation.of(json.loads(own.to_json_string()))(images)
    expected = own(as_files(images), return_tensors="pt")["pixel_values"]
    assert prepared.shape == expected.shape
    off = (prepared - expected).abs() * 255 * 0.26
    # Pillow rounds to whole values of 255, and clips, after each of its two passes.
    assert float(off.max()) < 2.5 and float(off.mean()) < 0.5


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"do_resize": False}, (SIDE, SIDE)),
        ({"do_center_crop": False}, (SIDE, 20)),
        ({"do_normalize": False}, (SIDE, SIDE)),
    ],
)
def test_what_a_processor_leaves_out_is_left_out(settings, shape):
    images = pictures(1)
    own = processor(**settings)
    prepared = ImagePreparation.of(json.loads(own.to_json_string()))(images)
    expected = own(as_files(images), return_tensors="pt")["pixel_values"]
    assert prepared.shape[-2:] == shape
    assert float((prepared - expected).abs().max()) < 1.51 / 255 / 0.26


def test_older_settings_are_read():
    old = {"size": 16, "crop_size": 16, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    assert ImagePreparation.of(old) == ImagePreparation(16, (16, 16), "bicubic", (0.5,) * 3, (0.25,) * 3)


def test_other_shapes_than_square_and_crops_larger_than_the_picture():
    images = pictures(2)
    own = ImageProcessor(size={"height": 9, "width": 30}, crop_size={"height": SIDE, "width": SIDE})
    prepared = ImagePreparation.of(json.loads(own.to_json_string()))(images)
    expected = own(as_files(images), return_tensors="pt")["pixel_values"]
    assert prepared.shape == expected.shape == (2, 3, SIDE, SIDE)
    assert float((prepared - expected).abs().max()) < 2.5 / 255 / 0.26


def test_gradient_passes_through_preparation():
    images = pictures(1, 20, 24).double().mul(0.8).add(0.1).requires_grad_()
    prepare = ImagePreparation(8, (8, 8), "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert torch.autograd.gradcheck(prepare, (images,))


# Scores


def test_scores_are_transformers_logits(saved):
    images = pictures()
    expected = logits(saved, images)
    assert float(expected.max() - expected.min()) > 0.5
    for kind in ("clip", "pickscore"):
        scores = get_reward(f"{kind}:{saved}")(images, PROMPTS)
        assert torch.allclose(scores, expected, atol=0.1), (scores, expected)  # pictures were not rounded to files
    exact = get_reward(f"clip:{saved}")
    small = pictures(3, SIDE, SIDE)  # nothing to resize, nothing to round
    assert torch.allclose(exact(small, PROMPTS), logits(saved, small), atol=1e-4)
    scale = math.exp(CLIPModel.from_pretrained(saved).logit_scale.item())
    assert torch.allclose(get_reward(f"hpsv2:{saved}")(small, PROMPTS) * scale, logits(saved, small), atol=1e-4)


def test_a_folder_may_hold_half_precision(folder):
    tiny_model().half().save_pretrained(folder)
    small = pictures(3, SIDE, SIDE)
    scores = get_reward(f"clip:{folder}")(small, PROMPTS)
    assert scores.dtype == torch.float32 and torch.allclose(scores, logits(folder, small).float(), atol=0.05)


def test_more_pictures_than_a_batch(saved):
    images = pictures(35, SIDE, SIDE)
    reward = get_reward(f"clip:{saved}")
    assert torch.allclose(reward(images, ["a"] * 35)[33:], reward(images[33:], ["a"] * 2), atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "pickscore", "hpsv2"])
def test_the_gradient_reaches_pictures_and_no_weights(saved, kind):
    images = pictures().requires_grad_()
    reward = get_reward(f"0.5*{kind}:{saved}")
    (gradient,) = torch.autograd.grad(reward(images, PROMPTS).sum(), images)
    assert reward.differentiable and all(bool(each.any()) for each in gradient)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        difference = (reward(images + step, PROMPTS) - reward(images - step, PROMPTS)).sum()
    assert float(difference) == pytest.approx(float(2 * (gradient * step).sum()), rel=0.05)


def head(places: tuple[int, ...], relu: bool) -> tuple[dict[str, Tensor], nn.Sequential]:
    """Tensors by LAION's names, and the network as it is written there."""
    torch.manual_seed(1)
    widths = [WIDTH, *(8, 6, 5, 4)[: len(places) - 1], 1]
    network = nn.Sequential()
    for place in range(places[-1] + 1):
        if place in places:
            at = places.index(place)
            network.append(nn.Linear(widths[at], widths[at + 1]))
        elif relu and place - 1 in places:
            network.append(nn.ReLU())
        else:
            network.append(nn.Dropout(0.2))
    return {f"layers.{name}": value.detach() for name, value in network.state_dict().items()}, network.eval()


@pytest.mark.parametrize(("places", "relu"), [((0,), False), ((0, 2, 4, 6, 7), False), ((0, 3, 6, 9, 11), True)])
@pytest.mark.parametrize("where", ["beside the model", "in its file", "beside one of pictures alone"])
def test_aesthetic_heads(folder, places, relu, where):
    tensors, network = head(places, relu)
    if where == "beside one of pictures alone":
        whole = CLIPModel.from_pretrained(folder)
        alone = CLIPVisionModelWithProjection(vision_config())
        alone.load_state_dict(
            {k: v for k, v in whole.state_dict().items() if k.startswith(("vision_model", "visual_projection"))}
        )
        alone.save_pretrained(folder)
    if where == "in its file":
        save_file(
            {**load_file(folder / "model.safetensors"), **tensors}, folder / "model.safetensors", {"format": "pt"}
        )
    else:
        save_file(tensors, folder / "sac+logos+ava1-l14-linearMSE.safetensors")
    images = pictures(3, SIDE, SIDE)
    pixels = processor()(as_files(images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        model = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
        embeddings = model(pixel_values=pixels).image_embeds
        expected = network(embeddings / embeddings.norm(dim=1, keepdim=True))[:, 0]
    reward = get_reward(f"aesthetic:{folder}")
    assert torch.allclose(reward(images, PROMPTS), expected, atol=1e-5)
    leaf = images.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(leaf, PROMPTS).sum(), leaf)
    assert all(bool(each.any()) for each in gradient)


def test_a_plain_linear_head(folder):
    linear = nn.Linear(WIDTH, 1)
    save_file(dict(linear.state_dict()), folder / "sa_0_4_vit_l_14_linear.safetensors")
    image = pictures(1, SIDE, SIDE)
    reward = get_reward(f"aesthetic:{folder}")
    embedding = Clip(folder, text=False).embed_images(image)
    assert float(embedding.norm()) == pytest.approx(1)
    assert torch.allclose(reward(image, [""]), linear(embedding)[:, 0])


# What is no such folder


def config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(changes))


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def vision_only_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if name.startswith("vis")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
WRONG = [
    (lambda f: lose(f, "config.json"), "is not a CLIP folder: it has no config.json"),
    (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    (lambda f: config(f, _class_name="UNet2DConditionModel"), "holds UNet2DConditionModel, not a CLIP for pictures"),
    (lambda f: config(f, model_type="clip_text_model"), "holds clip_text_model, not a CLIP for pictures and text"),
    (lambda f: config(f, model_type="siglip"), "holds siglip, not a CLIP"),
    (lambda f: config(f, model_type="clip_vision_model"), "for pictures alone, and this reward reads the prompt"),
    (as_pickle, r"are a pickle \(pytorch_model.bin\), which.*Save the model as safetensors"),
    (lambda f: lose(f, "model.safetensors"), "has no model.safetensors"),
    (cut, "cannot be loaded"),
    (vision_only_weights, "are not those of the CLIP that config.json describes: .* is missing"),
    (lambda f: lose(f, *PROCESSOR_FILES), "does not say how pictures are prepared"),
    (lambda f: [(f / name).write_text("{}") for name in PROCESSOR_FILES], "in a way that is not understood"),
    (lambda f: lose(f, "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"), "has no tokenizer"),
]


@pytest.mark.parametrize(("spoil", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_a_wrong_folder_gets_a_sentence(folder, spoil, sentence):
    spoil(folder)
    with pytest.raises(D3POError, match=sentence):
        get_reward(f"clip:{folder}")


def test_whole_other_models_are_refused(tmp_path):
    tiny_unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(D3POError, match="holds UNet2DConditionModel, not a CLIP"):
        get_reward(f"aesthetic:{tmp_path / 'unet'}")
    tiny_clip().save_pretrained(tmp_path / "text")
    with pytest.raises(D3POError, match="holds clip_text_model, not a CLIP"):
        get_reward(f"clip:{tmp_path / 'text'}")


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({}, "has no aesthetic head"),
        ({"layers.0.weight": torch.zeros(1, WIDTH)}, "which is no form of LAION's"),
        ({f"layers.{i}.{n}": torch.zeros(3) for i in (0, 1) for n in ("weight", "bias")}, r"layers at \(0, 1\)"),
        ({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, f"of 768 numbers, and this CLIP's have {WIDTH}"),
    ],
)
def test_a_wrong_head_gets_a_sentence(folder, tensors, sentence):
    if tensors:
        save_file(tensors, folder / "head.safetensors")
    with pytest.raises(D3POError, match=sentence):
        get_reward(f"aesthetic:{folder}")


def test_a_head_as_pickle_is_named(folder):
    (folder / "sac+logos+ava1-l14-linearMSE.pth").write_bytes(b"")
    with pytest.raises(D3POError, match=r"no aesthetic head but a pickle \(sac\+logos.*Save the head's state_dict"):
        get_reward(f"aesthetic:{folder}")


def test_what_was_loaded_in_inference_mode_still_has_gradients(folder):
    """ComfyUI runs nodes inside it."""
    save_file({"weight": torch.ones(1, WIDTH), "bias": torch.zeros(1)}, folder / "head.safetensors")
    with torch.inference_mode():
        reward = get_reward(f"clip:{folder} + aesthetic:{folder}")
        reward(pictures(), PROMPTS)
    images = pictures().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(images, PROMPTS).sum(), images)
    assert bool(gradient.any())


def test_picks_are_learnt_on_a_clips_features(folder, tmp_path):
    from d3po_core.picks import Pick
    from d3po_core.rewards.features import get_features
    from d3po_core.rewards.judge import fit_judge, load_judge, save_judge
    from tests.run_helpers import make_run, put_group

    liked = get_features(f"clip:{folder}")  # a taste that these features know: for what is large in the first of them
    run = make_run(tmp_path / "run")
    noise = torch.rand(32, 2, 3, 4, 4, generator=torch.Generator().manual_seed(8))
    for each in noise:
        group = put_group(run)
        images = nn.functional.interpolate(each, (SIDE, SIDE))
        for number, image in enumerate(as_files(images)):
            image.save(run.groups.image_path(group, number))
        run.picks.add(group, Pick("favourite", (int(liked(images)[:, 0].argmax()),)))
    found = fit_judge(run, features=f"clip:{folder}")
    assert found.facts.features == f"clip:{folder}" and found.head.weights.shape == (WIDTH,)
    assert found.facts.accuracy > 0.75
    path = save_judge(found, tmp_path / "taste.safetensors")
    image = pictures(1).requires_grad_()
    (gradient,) = torch.autograd.grad(load_judge(path).reward()(image, [""]).sum(), image)
    assert bool(gradient.any())
    torch.manual_seed(7)
    CLIPModel(CLIPConfig.from_pretrained(folder)).save_pretrained(folder)  # other weights in the same place
    with pytest.raises(D3POError, match="are not what they were"):
        load_judge(path)
