"""The protocol of rewards, those that need no file against independent computations, and specs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d3po_core.embedded import CLASSIFIER_FOLDER
from d3po_core.errors import D3POError
from d3po_core.rewards import REWARDS, Reward, check_varied, get_reward, require_differentiable, weighted_sum
from d3po_core.rewards.simple import jpeg_size
from d3po_core.rewards.spec import canonical

needs_judge = pytest.mark.skipif(
    not (CLASSIFIER_FOLDER / "model.safetensors").exists(), reason="the judge is not trained yet"
)
PLAIN = [name for name in REWARDS if "garden" not in name]
EVERY = [pytest.param(name, marks=needs_judge if "garden" in name else ()) for name in REWARDS]


def pictures(count: int = 5, side: int = 24) -> torch.Tensor:
    """Images from flat to noisy, in [0, 1]."""
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))
    return 0.5 + (noise - 0.5) * torch.linspace(0, 1, count).reshape(-1, 1, 1, 1)


def reward(function, differentiable: bool = True) -> Reward:
    return Reward("mine", "nothing", function, differentiable)


# The protocol


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda images, prompts: images.mean(), r"'mine' returned \(\) for 5 pictures.*shape \(5,\)"),
        (lambda images, prompts: images.mean((2, 3)), r"returned \(5, 3\) for 5 pictures"),
        (lambda images, prompts: [1.0] * len(images), r"returned list for 5 pictures"),
        (lambda images, prompts: torch.tensor([0, 1, float("nan"), 3, float("inf")]), r"infinity for 2 of 5 pictures"),
    ],
)
def test_what_is_not_a_score_for_each_picture_is_refused(function, sentence):
    with pytest.raises(D3POError, match=sentence):
        reward(function)(pictures(), [""] * 5)


def test_a_promised_gradient_that_is_lost_is_noticed():
    images = pictures().requires_grad_()
    with pytest.raises(D3POError, match="'mine' is marked as differentiable, but its scores carry no gradient"):
        reward(lambda images, prompts: images.detach().mean((1, 2, 3)))(images, [""] * 5)
    with torch.no_grad():  # nobody asks for one
        reward(lambda images, prompts: images.detach().mean((1, 2, 3)))(images, [""] * 5)


def test_a_reward_that_is_not_differentiable_gives_no_gradient():
    scores = reward(lambda images, prompts: images.mean((1, 2, 3)), differentiable=False)(
        pictures().requires_grad_(), [""] * 5
    )
    assert not scores.requires_grad and torch.is_grad_enabled()


def test_a_constant_reward_teaches_nothing():
    constant = reward(lambda images, prompts: 0 * images.mean((1, 2, 3)) + 0.3)
    with pytest.raises(D3POError, match=r"'mine' gives every picture the same score.*nothing to learn"):
        check_varied(constant, constant(pictures(), [""] * 5))
    warmth, rounding = get_reward("warmth"), torch.tensor([-3e-9, 0.0, 2e-9])  # what grey pictures come to
    with pytest.raises(D3POError, match=r"'warmth' gives every picture the same score"):
        check_varied(warmth, rounding)
    check_varied(warmth, warmth(pictures(), [""] * 5))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("given", "got"), [(torch.float16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_scores_are_as_precise_as_the_pictures_but_never_half(name, given, got):
    scores = get_reward(name)(pictures().to(given), [""] * 5)
    assert scores.shape == (5,) and scores.dtype == got


@pytest.mark.parametrize("name", EVERY)
def test_gradient_reaches_the_pictures_of_exactly_the_differentiable(name):
    images = pictures().requires_grad_()
    scores = get_reward(name)(images, [""] * 5)
    assert scores.requires_grad == get_reward(name).differentiable == ("compress" not in name or "smooth" in name)
    if scores.requires_grad:
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert gradient.isfinite().all() and all(bool(each.any()) for each in gradient[1:])


def test_every_reward_says_what_it_likes():
    assert all(reward.likes and not reward.likes.endswith(".") for reward in REWARDS.values())


# Those that need no file


def test_jpeg_size_is_that_of_a_file_on_disk(tmp_path):
    images = pictures()
    for image, size in zip(images, jpeg_size(images), strict=True):
        Image.fromarray(np.uint8(np.rint(image.numpy().transpose(1, 2, 0) * 255))).save(tmp_path / "a.jpg", quality=95)
        assert float(size) == pytest.approx((tmp_path / "a.jpg").stat().st_size / 1000)


@pytest.mark.parametrize("smooth", ["", "smooth-"])
def test_noise_is_less_compressible_than_a_flat_picture(smooth):
    sizes = get_reward(f"{smooth}incompressibility")(pictures(), [""] * 5)
    assert bool((sizes.diff() > 0).all())
    assert torch.equal(get_reward(f"{smooth}compressibility")(pictures(), [""] * 5), -sizes)


def test_values_beyond_the_range_are_clipped_not_wrapped():
    images = pictures() * 3 - 1
    assert torch.equal(jpeg_size(images), jpeg_size(images.clamp(0, 1)))


def test_warmth_is_red_minus_blue():
    colours = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.9, 0.2], [0.0, 0.0, 1.0]])
    images = colours[:, :, None, None].expand(3, 3, 8, 8)
    assert get_reward("warmth")(images, [""] * 3).tolist() == pytest.approx([1.0, 0.0, -1.0])
    mixed = pictures()
    expected = [np.mean(x[0]) - np.mean(x[2]) for x in mixed.numpy().astype(np.float64)]
    assert get_reward("warmth")(mixed, [""] * 5).tolist() == pytest.approx(expected, abs=1e-6)


def test_contrast_is_the_spread_of_brightness():
    images = pictures().double()
    expected = [np.std(0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]) for x in images.numpy()]
    assert get_reward("contrast")(images, [""] * 5).tolist() == pytest.approx(expected, abs=2e-4)
    board = torch.zeros(1, 3, 8, 8)
    board[..., ::2] = 1
    assert get_reward("contrast")(board, [""]).item() == pytest.approx(0.5)


@needs_judge
@pytest.mark.parametrize(("name", "what"), [("garden-size", "size"), ("garden-lean", "lean")])
def test_garden_rewards_order_renderings(name, what):
    from tools.garden.pictures import Scene, render

    values = [0.05, 0.5, 0.95]
    scenes = [Scene("daisy", "red", "by day", **{what: value}) for value in values]
    images = torch.stack([torch.from_numpy(render(scene).copy()).permute(2, 0, 1) / 255 for scene in scenes])
    scores = get_reward(name)(images, ["a red daisy by day"] * 3)
    assert bool((scores.diff() > 0).all()) and not scores.requires_grad


@needs_judge
def test_the_garden_rewards_gradient_is_that_of_finite_differences():
    """Along the gradient's own direction, through the judge's own float32."""
    images = pictures(2, 64).requires_grad_()
    size = get_reward("garden-size")
    (gradient,) = torch.autograd.grad(size(images, ["", ""]).sum(), images)
    step = 0.01 * gradient / gradient.norm()
    with torch.no_grad():
        difference = size(images + step, ["", ""]).sum() - size(images - step, ["", ""]).sum()
    assert float(difference) == pytest.approx(float(2 * (gradient * step).sum()), rel=0.02)


# Specs


@pytest.mark.parametrize(
    ("spec", "weights"),
    [
        ("warmth", {"warmth": 1}),
        ("0.5*warmth + contrast", {"warmth": 0.5, "contrast": 1}),
        ("warmth+contrast", {"warmth": 1, "contrast": 1}),
        ("garden-size+2 * warmth", {"garden-size": 1, "warmth": 2}),
        (" -1e-1*contrast + 1e+1*warmth", {"contrast": -0.1, "warmth": 10}),
        ("warmth + compressibility", {"warmth": 1, "compressibility": 1}),
    ],
)
def test_a_sum_is_the_sum(spec, weights):
    if "garden-size" in weights and not (CLASSIFIER_FOLDER / "model.safetensors").exists():
        pytest.skip("the judge is not trained yet")
    images = pictures()
    expected = sum(weight * REWARDS[name](images, [""] * 5) for name, weight in weights.items())
    found = get_reward(spec)
    assert torch.allclose(found(images, [""] * 5), expected)
    assert found.differentiable == all(REWARDS[name].differentiable for name in weights)
    assert torch.equal(get_reward(found.name)(images, [""] * 5), found(images, [""] * 5))  # the name is a spec too


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("beauty", "There is no reward called 'beauty'. Choose one of compressibility.*clip:PATH.*picks:PATH"),
        ("", "There is no reward called ''"),
        ("warmth + ", "There is no reward called ''"),
        ("warmth+beauty", "There is no reward called 'beauty'"),
        ("much*warmth", "The weight 'much' of the reward 'warmth' is not a number"),
        ("nan*warmth", "The weight 'nan'"),
        ("1e999*warmth", "The weight '1e999'"),
        ("0*warmth", "The weight '0'"),
        ("*warmth", "The weight ''"),
        ("clip:", "'clip:' has no path. Write clip:/path/to/a CLIP folder"),
        ("2*clip:/no/where", "/no/where is not a CLIP folder"),
        ("warmth + picks:/no/where.safetensors", "is missing: /no/where.safetensors"),
        ("clip:~nobody-of-this-name/x", "~nobody-of-this-name/x is not a CLIP folder"),
        ("picks:~nobody-of-this-name/x", "is missing: ~nobody-of-this-name/x"),
    ],
)
def test_a_wrong_spec_gets_a_sentence(spec, sentence):
    with pytest.raises(D3POError, match=sentence):
        get_reward(spec)


def test_a_path_may_hold_signs(tmp_path):
    with pytest.raises(D3POError, match=r"/a\+warmth\*2 is not a CLIP folder"):
        get_reward(f"warmth + clip:{tmp_path}/a+warmth*2")


@pytest.mark.parametrize(
    ("spec", "written"),
    [
        ("warmth", "warmth"),
        (" 0.5*warmth+contrast", "0.5*warmth + contrast"),
        ("-1e-1 * contrast + 1.0*warmth", "-0.1*contrast + warmth"),
        ("0.1234567891*warmth", "0.1234567891*warmth"),
    ],
)
def test_a_reward_knows_how_it_is_written(spec, written):
    assert canonical(spec) == get_reward(spec).written == written == get_reward(written).written


def test_a_sum_of_sums_is_written_as_what_it_is():
    both = get_reward("warmth + 0.25*contrast")
    for made in (weighted_sum([(2.0, both)]), weighted_sum([(2.0, both), (-1.0, REWARDS["smooth-compressibility"])])):
        assert torch.equal(made(pictures(), [""] * 5), get_reward(made.written)(pictures(), [""] * 5))
    assert weighted_sum([(2.0, both)]).written == "2.0*warmth + 0.5*contrast"


def test_a_name_is_for_people():
    """And what an older version has kept of a round's reward is compared with it."""
    assert get_reward("2*warmth + 0.12345678*contrast").name == "2*warmth + 0.123457*contrast"


def test_paths_are_written_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert canonical("2*picks: a b.safetensors + clip:~/c") == (
        f"2.0*picks:{tmp_path}/a b.safetensors + clip:{tmp_path}/home/c"
    )
    assert canonical("clip:~nobody-of-this-name/x") == f"clip:{tmp_path}/~nobody-of-this-name/x"
    monkeypatch.setattr("d3po_core.rewards.judge.load_judge_reward", lambda path: REWARDS["warmth"])
    assert get_reward("picks:a.safetensors").written == f"picks:{tmp_path}/a.safetensors"
    mine = reward(lambda images, prompts: images.mean((1, 2, 3)))
    assert mine.written == "" and get_reward("mine", {"mine": lambda: mine}).written == "mine"
    assert weighted_sum([(2.0, mine), (1.0, REWARDS["warmth"])]).written == ""  # no text gives it again


def test_who_needs_a_gradient_is_told_what_has_none():
    assert require_differentiable(get_reward("warmth + contrast")).differentiable
    with pytest.raises(D3POError, match=r"'compressibility' is not differentiable.*Choose one of warmth, contrast"):
        require_differentiable(get_reward("compressibility"))
    with pytest.raises(D3POError, match="The reward 'incompressibility' is not"):
        require_differentiable(get_reward("warmth + 2*incompressibility"))


def test_a_sum_of_one_is_that_one():
    assert weighted_sum([(1.0, REWARDS["warmth"])]) is REWARDS["warmth"]


def test_importing_rewards_loads_no_heavy_library():
    code = "import sys, d3po_core.rewards as s; print({'transformers', 'diffusers', 'peft'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert said.stdout.strip() == "set()"


@needs_judge
def test_what_was_loaded_in_inference_mode_still_has_gradients():
    """ComfyUI runs nodes inside it."""
    from d3po_core.rewards import simple

    simple._load_classifier.cache_clear()
    with torch.inference_mode():
        reward = get_reward("garden-size + warmth")
        reward(pictures(2, 64), ["", ""])
    images = pictures(2, 64).requires_grad_()
    (gradient,) = torch.autograd.grad(reward(images, ["", ""]).sum(), images)
    assert bool(gradient.any())
