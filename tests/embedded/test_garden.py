"""The shipped model and its judge: they load plainly, and the judge can be trusted."""

from __future__ import annotations

import pytest

from d3po_core.embedded import GARDEN_FOLDER

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipe():
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(GARDEN_FOLDER)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def judge():
    from d3po_core.embedded.classifier import GardenClassifier

    return GardenClassifier.load()


def test_judge_on_renderings_and_reconstructions(pipe, judge):
    from tools.garden.measure import renderings
    from tools.garden.train_vae import reconstruct

    images, prompts, truth = renderings(600, seed=31)
    for shown in (images, reconstruct(pipe.vae, images)):
        assert min(judge.fidelity(shown, prompts).values()) >= 0.99
        said = judge(shown)
        for name, value in truth.items():
            assert torch.corrcoef(torch.stack([said[name], value]))[0, 1] > 0.97


def test_pictures_survive_encoding_and_decoding(pipe):
    from d3po_core.models import DiffusersModel
    from tools.garden.measure import renderings

    images, _, _ = renderings(32, seed=33)
    model = DiffusersModel(pipe)
    latents = model.encode_images(images)
    assert latents.shape == (32, *model.latent_shape())
    assert float((model.decode(latents) - images).square().mean().sqrt()) < 0.03
    assert float((model.decode(latents.roll(1, 0)) - images).square().mean().sqrt()) > 0.1  # others' are far off


def test_judge_takes_other_sizes(judge):
    from tools.garden.measure import renderings

    images, prompts, _ = renderings(60, seed=32)
    large = torch.nn.functional.interpolate(images, (128, 128), mode="bilinear")
    assert min(judge.fidelity(large, prompts).values()) >= 0.95


def test_pipeline_draws_what_it_is_told(pipe, judge):
    from d3po_core.embedded import split_prompts

    prompts = split_prompts()[1]
    generator = torch.Generator().manual_seed(3)
    images = pipe(prompts, num_inference_steps=12, guidance_scale=2.5, generator=generator, output_type="pt").images
    assert images.shape == (16, 3, 64, 64)
    assert min(judge.fidelity(images, prompts).values()) >= 0.75


def test_folder_is_small_and_has_no_pickles():
    files = [path for path in GARDEN_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors", ".md"}


def test_tokenizer_knows_the_words_and_spells_the_rest(pipe):
    from d3po_core.embedded import PROMPTS

    for prompt in PROMPTS:
        assert len(pipe.tokenizer(prompt).input_ids) == len(prompt.split()) + 2
    spelled = pipe.tokenizer.convert_ids_to_tokens(pipe.tokenizer("zebra").input_ids)[1:-1]
    assert "".join(spelled).replace("</w>", "") == "zebra"
