"""Reward From Picks: the fit against closed forms, honesty about chance, the file, and a run's own picks."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from d3po_core.rewards import get_reward
from d3po_core.rewards.cross_validation import (
    PairData,
    by_group,
    fit_bradley_terry,
    fit_head,
    fold_of,
    hidden_loss,
    hidden_margins,
    meant,
)
from d3po_core.rewards.features import Statistics, get_features, reach
from d3po_core.rewards.judge import (
    MIN_GROUPS,
    MIN_Z,
    Judge,
    above_chance,
    enough,
    feature_spread,
    fit_judge,
    judge_scores,
    load_judge,
    preferences,
    save_judge,
)
from d3po_core.run import Run
from d3po_core.run.panel import Panel
from d3po_core.training.preferences import collect_preferences
from tests.run_helpers import make_run, put_group

STATISTICS = Statistics()


def alone(differences: Tensor, weights: Tensor | None = None) -> PairData:
    """Pairs of which each is a group of its own."""
    count = len(differences)
    weights = torch.ones(count, dtype=torch.float64) if weights is None else weights
    return PairData(differences, weights, torch.arange(count))


def coloured_run(folder: Path, groups: int, candidates: int = 3, held_out: int = 0) -> Run:
    """Little blurred noises with a tint each; the last groups are held out."""
    run = make_run(folder)
    chance = np.random.default_rng(5)
    for number in range(groups):
        group = put_group(run, candidates=candidates, held_out=number >= groups - held_out)
        for candidate in range(candidates):
            noise = np.kron(chance.random((4, 4, 3)), np.ones((4, 4, 1))) * 0.4 + chance.random(3) * 0.6
            Image.fromarray(np.uint8(noise * 255)).save(run.groups.image_path(group, candidate))
    return run


def pick_all(run: Run, taste: str = "warmth", who: str = "", seed: int | None = None) -> None:
    """The best by a taste, or one at random."""
    from d3po_core.run.run import read_images

    chance = np.random.default_rng(seed)
    for group in run.groups.select():
        best = int(get_reward(taste)(read_images(run, group), [""] * group.candidates).argmax())
        run.picks.add(
            group.id, Pick("favourite", (best if seed is None else int(chance.integers(group.candidates)),)), who=who
        )


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Run:
    run = coloured_run(tmp_path_factory.mktemp("warm") / "run", 48, held_out=8)
    pick_all(run)
    return run


@pytest.fixture(scope="module")
def understood(warm) -> Judge:
    return fit_judge(warm)


# The fit


def test_one_feature_is_fitted_as_its_equation_says():
    """n pairs with difference 1, share p of them won, no ridge to speak of: beta is the logit of p."""
    differences = torch.tensor([[1.0]] * 30 + [[-1.0]] * 10, dtype=torch.float64)
    beta = fit_bradley_terry(alone(differences), 1e-9)
    assert float(beta) == pytest.approx(math.log(3), abs=1e-5)


def test_the_fit_is_where_the_gradient_vanishes_and_another_solver_ends():
    chance = torch.Generator().manual_seed(2)
    differences = torch.randn(50, 6, dtype=torch.float64, generator=chance)
    weights = torch.rand(50, dtype=torch.float64, generator=chance)
    found = fit_bradley_terry(alone(differences, weights), 0.3)
    beta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([beta], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        total = -(weights * torch.nn.functional.logsigmoid(differences @ beta)).sum() + 0.15 * beta.square().sum()
        total.backward()
        return total

    solver.step(loss)
    assert torch.allclose(found, beta.detach(), atol=1e-5)


def test_pairs_that_one_line_parts_are_no_difficulty():
    differences = torch.tensor([[3.0, 0.1]] * 20, dtype=torch.float64) * 100
    beta = fit_bradley_terry(alone(differences), 1e-4)
    assert beta.isfinite().all() and bool((differences @ beta > 5).all())


def test_weights_count_as_repetitions():
    chance = torch.Generator().manual_seed(3)
    differences = torch.randn(20, 3, dtype=torch.float64, generator=chance)
    twice = torch.tensor([2.0] * 5 + [1.0] * 15, dtype=torch.float64)
    repeated = torch.cat([differences, differences[:5]])
    weighted = fit_bradley_terry(alone(differences, twice), 0.1)
    assert torch.allclose(weighted, fit_bradley_terry(alone(repeated), 0.1), atol=1e-5)


@pytest.mark.parametrize(("pairs", "features"), [(12, 40), (60, 5)])
def test_the_span_of_the_pairs_holds_the_minimum(pairs, features):
    chance = torch.Generator().manual_seed(4)
    differences = torch.randn(pairs, features, dtype=torch.float64, generator=chance)
    data = alone(differences)
    scale = torch.rand(features, dtype=torch.float64, generator=chance)
    span, back = data.scaled(scale)
    direct = scale * fit_bradley_terry(alone(differences * scale), 0.2)
    assert torch.allclose(back @ fit_bradley_terry(span, 0.2), direct, atol=1e-5)


def test_with_lapses_the_fit_is_where_the_gradient_of_their_mixture_vanishes():
    """The mixture is written out here, group by group; what a fit of it has found, no small change improves."""
    data = noise_data(30, 4, 7)
    found = fit_bradley_terry(data, 0.5, lapses=0.2).requires_grad_()
    total = 0.25 * found.square().sum()
    for group in data.groups.unique():
        by_scores = torch.sigmoid(data.differences[data.groups == group] @ found).prod()
        total = total - (0.8 * by_scores + 0.2 * 0.5**3).log() / 3  # a group's three pairs weigh 1/3 each
    total.backward()
    assert float(found.grad.abs().max()) < 1e-4
    assert not torch.allclose(found, fit_bradley_terry(data, 0.5), atol=1e-2)
    assert hidden_loss(data, data.differences @ found.detach(), lapses=0.2) == pytest.approx(
        float((total - 0.25 * found.square().sum()).detach()), abs=1e-9
    )


def test_picks_that_were_slips_are_found_and_hardly_count():
    """Of 40 groups, picked by the first of 3 features, 4 are turned round."""
    chance = torch.Generator().manual_seed(1)
    seen = torch.randn(40, 4, 3, dtype=torch.float64, generator=chance)
    order = seen[..., 0].argsort(1, descending=True)
    order[:4] = order[:4].flip(1)
    ranked = seen.gather(1, order[..., None].expand_as(seen))
    differences = (ranked[:, :1] - ranked[:, 1:]).flatten(0, 1)
    groups = torch.arange(40).repeat_interleave(3)
    data = PairData(differences, torch.full((120,), 1 / 3, dtype=torch.float64), groups)
    beta, plain = (fit_bradley_terry(data, 0.25, lapses=lapses) for lapses in (0.1, 0.0))
    probability = meant(data, differences @ beta, 0.1)
    assert float(probability[:4].max()) < 0.2 < 0.8 < float(probability[4:].mean())
    assert float(beta[0]) > 1.5 * float(plain[0])


# Cross-validation


def test_folds_hide_whole_groups_and_are_even():
    groups = torch.tensor([7, 7, 3, 3, 3, 9, 1, 1, 2, 4])
    folds = fold_of(groups, 3)
    assert all(len(folds[groups == group].unique()) == 1 for group in groups.unique())
    sizes = [len(groups[folds == fold].unique()) for fold in range(3)]
    assert sorted(sizes) == [2, 2, 2]


def noise_data(groups: int, features: int, seed: int) -> PairData:
    """Four candidates, one of them picked at random: three pairs that share a winner."""
    chance = torch.Generator().manual_seed(seed)
    seen = torch.randn(groups, 4, features, dtype=torch.float64, generator=chance)
    differences = (seen[:, :1] - seen[:, 1:]).flatten(0, 1)
    weights = torch.full((3 * groups,), 1 / 3, dtype=torch.float64)
    return PairData(differences, weights, torch.arange(groups).repeat_interleave(3))


def test_what_is_hidden_is_not_known():
    """Of noise a head knows its own pairs nearly all, and hidden ones half."""
    honest, flattered = [], []
    scales = [torch.full((40,), 40**-0.5, dtype=torch.float64)]
    for seed in range(8):
        data = noise_data(40, 40, seed)
        honest.append(float(by_group(data, hidden_margins(data, scales)[0]).mean()))
        flattered.append(float(by_group(data, data.differences @ fit_head(data, scales)[0]).mean()))
    assert np.mean(flattered) > 0.8
    assert abs(np.mean(honest) - 0.5) < 0.06


def test_a_group_counts_once():
    data = PairData(torch.zeros(4, 1), torch.tensor([0.5, 0.5, 1.0, 2.0]).double(), torch.tensor([0, 0, 1, 1]))
    assert by_group(data, torch.tensor([1.0, -1.0, 2.0, 0.0])).tolist() == pytest.approx([0.5, 2 / 3])


def test_above_chance_is_a_count_of_standard_errors():
    assert above_chance(torch.ones(25).double()) == pytest.approx(5)  # all right: sqrt(25)
    wins = torch.tensor([1.0] * 60 + [0.0] * 40).double()
    assert above_chance(wins) == pytest.approx((60 - 50) / math.sqrt(100 / 4))  # the sign test's
    assert above_chance(torch.full((9,), 0.5).double()) == 0


def test_features_are_measured_within_groups():
    offsets = torch.tensor([0.0, 100.0, -40.0]).double()
    groups = [torch.tensor([[-1.0, 3.0], [1.0, 3.0]]).double() + offset for offset in offsets]
    _, std = feature_spread(groups)
    assert std.tolist() == [1.0, math.inf]


# Features


def test_features_have_a_gradient_that_is_that_of_finite_differences():
    images = torch.rand(1, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(6)).requires_grad_()
    assert torch.autograd.gradcheck(STATISTICS, (images,), atol=1e-5, fast_mode=True)
    flat = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(STATISTICS(flat).sum(), flat)
    assert gradient.isfinite().all()


def test_the_features_scales_fit_them():
    count = STATISTICS(torch.rand(2, 3, 30, 50)).shape
    assert all(count == (2, len(scale)) for scale in STATISTICS.scales)
    big = STATISTICS(torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), (512, 384), mode="bilinear"))
    assert big.isfinite().all()


def test_composition_is_where_colour_is_and_what_a_mirror_changes():
    """Against a square of colour whose place and mirror images are known."""
    first = 3 + 3 + 1 + 15 + 1
    images = torch.full((3, 3, 64, 64), 0.5)
    images[0, 0, 40:48, 8:16] += 0.4  # below and left
    images[1, 0, 40:48, 28:36] += 0.4  # below and in the middle: like its mirror image
    images[2, 0, 8:24, 8:16] += 0.4  # twice as high
    place, colour = torch.linspace(-1, 1, 64), images[:, 0] - 0.5
    down, across, reach_down, reach_across = reach(colour).T
    assert torch.allclose(down[:2], place[40:48].mean())
    assert torch.allclose(across[0], place[8:16].mean())
    assert across[1] == pytest.approx(0, abs=1e-6)
    assert torch.allclose(reach_down[2], place[8:24].square().mean())
    assert torch.allclose(reach_across[1], place[28:36].square().mean())
    spread, *found, _, _, _, _, _, _ = STATISTICS(images)[:, first : first + 11].T
    assert torch.stack(found).T[:, :2] == pytest.approx(reach(colour)[:, :2], abs=0.2)  # EPSILON is everywhere
    mirrored = STATISTICS(images)[:, first + 5 : first + 11].T
    left_right, top_bottom = mirrored.unflatten(0, (2, 3))
    assert left_right[:, 1] == pytest.approx(0, abs=1e-6)
    assert (left_right[:, 0] > 0).all()
    assert torch.allclose(left_right[:, 0], top_bottom[:, 0], rtol=1e-4)
    assert torch.allclose(left_right[:, 2], 2 * left_right[:, 0], rtol=1e-4)
    assert spread[2] > spread[0]


def test_unknown_features_get_a_sentence():
    for name in ("magic", "clip:"):
        with pytest.raises(D3POError, match=f"no features called '{name}'. Choose statistics, or clip:"):
            get_features(name)


# From a run


def test_a_taste_is_understood_and_foretold_where_nothing_was_seen(warm, understood):
    facts = understood.facts
    assert facts.accuracy > 0.85 and facts.z > 4 and facts.groups == 48 and facts.run_id == warm.run_id
    reward = understood.reward()
    assert reward.differentiable and reward.name == "picks:run"
    fresh = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(9)) * 0.4
    fresh = fresh + torch.rand(60, 3, 1, 1, generator=torch.Generator().manual_seed(10)) * 0.6
    known = torch.stack([reward(fresh, [""] * 60), get_reward("warmth")(fresh, [""] * 60)])
    assert float(torch.corrcoef(known)[0, 1]) > 0.8
    leaf = fresh[:4].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(leaf, [""] * 4).sum(), leaf)
    towards = (gradient[:, 0] - gradient[:, 2]).mean((1, 2))
    assert bool((towards > 0).all())  # up is where red grows and blue falls


def test_a_group_is_scored_as_its_pictures_are(warm, understood):
    """By the head, on features that were kept, as by the reward, on the pictures themselves."""
    from d3po_core.run.run import read_images

    groups = warm.groups.select()[:3]
    found = judge_scores(understood, warm, [group.id for group in groups])
    for group in groups:
        expected = understood.reward()(read_images(warm, group), [""] * group.candidates)
        assert found[group.id] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)
    assert len({round(score, 3) for scores in found.values() for score in scores}) == 9


@pytest.mark.parametrize(
    ("z", "share"),
    [(-3.0, 0.0), (0.0, 0.0), (1.75, 0.0), (1.85, 0.1), (2.25, 0.5), (2.65, 0.9), (2.75, 1.0), (9.0, 1.0)],
)
def test_the_share_that_is_learnt_grows_with_the_evidence(understood, z, share):
    assert dataclasses.replace(understood.facts, z=z).share == pytest.approx(share)


def test_held_out_groups_are_foretold_and_never_trained_on(tmp_path):
    """Turning every held-out pick round changes what is foretold, not the head."""
    run = coloured_run(tmp_path / "run", 40, candidates=2, held_out=10)
    pick_all(run)
    before = fit_judge(run)
    for group in (group for group in run.groups.select() if group.held_out):
        (stored,) = [each for each in run.picks.standing() if each.group_id == group.id]
        run.picks.add(group.id, Pick("favourite", (1 - stored.pick.order[0],)))
    after = fit_judge(run)
    assert torch.equal(before.head.weights, after.head.weights)
    assert after.facts.groups == 40 and after.facts.accuracy < before.facts.accuracy - 0.05


def test_random_picks_are_refused(tmp_path):
    """Of ten pickers without a taste hardly one passes (benchmarks/picks_reward.py tries a hundred)."""
    run = coloured_run(tmp_path / "run", 32, candidates=2)
    passed = 0
    for seed in range(10):
        pick_all(run, who=str(seed), seed=seed)
        found = fit_judge(run, panel=Panel(frozenset({str(seed)})))
        passed += found.facts.usable
        if not found.facts.usable:
            with pytest.raises(D3POError, match=r"do not tell yet what you like\. It predicts \d+% of 32 groups"):
                found.reward()
            with pytest.raises(D3POError, match="do not tell yet what you like"):
                save_judge(found, tmp_path / "no.safetensors")
    assert passed <= 1 and MIN_Z >= 2 and not (tmp_path / "no.safetensors").exists()


def test_too_few_picks_are_refused(tmp_path):
    run = coloured_run(tmp_path / "run", MIN_GROUPS - 1)
    pick_all(run)
    with pytest.raises(
        D3POError, match=f"There are {MIN_GROUPS - 1} groups with a preference, and {MIN_GROUPS} are needed"
    ):
        fit_judge(run)
    for group in run.groups.select():
        run.picks.add(group.id, Pick("tie"))
    with pytest.raises(D3POError, match="There are 0 groups with a preference"):
        fit_judge(run)


def test_consistency_stands_beside_accuracy(tmp_path):
    run = coloured_run(tmp_path / "run", 20, candidates=2)
    pick_all(run)
    assert "how often you would choose the same again is not known" in str(fit_judge(run).facts)
    for number, stored in enumerate(run.picks.standing()[:4]):
        again = stored.pick.order[0] if number else 1 - stored.pick.order[0]
        run.picks.add(stored.group_id, Pick("favourite", (again,)), reason="repeat")
    facts = fit_judge(run).facts
    assert (facts.same, facts.times) == (3, 4) and "you chose the same again in 3 of 4" in str(facts)


# The file


def test_a_file_gives_the_same_reward_back(understood, tmp_path):
    path = save_judge(understood, tmp_path / "taste.safetensors")
    images = torch.rand(5, 3, 20, 20, generator=torch.Generator().manual_seed(11))
    again = get_reward(f"2*picks:{path}")
    assert again.name == "2*picks:taste.safetensors" and again.differentiable
    assert torch.equal(again(images, [""] * 5), 2 * understood.reward()(images, [""] * 5))
    assert load_judge(path).facts == understood.facts
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["facts"])["accuracy"] == understood.facts.accuracy
        assert set(file.keys()) == {"mean", "std", "weights", "probe"}


def respelled(path: Path, to: Path, tensors=None, **facts) -> Path:
    """The file with other tensors or facts, as another program might write it."""
    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    del metadata["crc32"]
    metadata["facts"] = json.dumps({**json.loads(metadata["facts"]), **facts})
    save_file({**kept, **(tensors or {})}, to, metadata)
    return to


def test_a_wrong_file_gets_a_sentence(understood, tmp_path):
    path, other = save_judge(understood, tmp_path / "taste.safetensors"), tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(D3POError, match=r"other.safetensors is not a reward from picks"):
        get_reward(f"picks:{other}")
    other.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(D3POError, match="The reward from picks is damaged"):
        get_reward(f"picks:{other}")
    with pytest.raises(D3POError, match="do not tell yet what you like"):
        get_reward(f"picks:{respelled(path, other, z=0.3)}")
    with pytest.raises(D3POError, match=r"fitted on \(statistics\) are not what they were"):
        get_reward(f"picks:{respelled(path, other, {'probe': torch.zeros_like(understood.head.mean)})}")
    with pytest.raises(D3POError, match="/no/where is not a CLIP folder"):
        get_reward(f"picks:{respelled(path, other, features='clip:/no/where')}")
    with pytest.raises(D3POError, match=r"other.safetensors is incomplete"):
        get_reward(f"picks:{respelled(path, other, surprise=1)}")


def test_what_was_fitted_or_loaded_in_inference_mode_still_has_gradients(warm, tmp_path):
    """ComfyUI runs nodes inside it."""
    with torch.inference_mode():
        found = fit_judge(warm)
        save_judge(found, tmp_path / "a.safetensors")
        again = get_reward(f"picks:{tmp_path / 'a.safetensors'}")
    images = torch.rand(2, 3, 20, 20).requires_grad_()
    for reward in (found.reward(), again):
        (gradient,) = torch.autograd.grad(reward(images, ["", ""]).sum(), images)
        assert bool(gradient.any())


def test_flags_count_in_what_is_learnt(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    group = put_group(run)
    run.picks.add(group, Pick("favourite", (0,)))
    before = preferences(run)[0][group]
    run.flags.add(group, 0, "defective")
    after = preferences(run)[0][group]
    assert {pair.winner for pair in before} == {0} and {pair.loser for pair in after} == {0}
    assert after == collect_preferences(run).training[group]


def test_held_out_groups_count_for_a_judge(tmp_path):
    """Else somebody with 16 picks, of which two are held out, would be taught without any evidence."""
    run = coloured_run(tmp_path / "run", MIN_GROUPS, held_out=2)
    pick_all(run)
    assert fit_judge(run).facts.groups == MIN_GROUPS
    assert enough([""] * 8, [""] * 8)
    assert not enough([""] * 7, [""] * 9)  # too few to fit it to
