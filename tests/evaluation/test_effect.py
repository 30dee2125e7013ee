"""What a round did to pictures: adherence against its definition, limits, the expected win rate, and the strength."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from d3po_core.app import training
from d3po_core.app.loras import UP
from d3po_core.app.sampling import add_prompts, sample_groups
from d3po_core.app.training import Next, PicksRequest, effect_in_words, round_outcome, settle_round
from d3po_core.diffusion.denoiser import Conditioning
from d3po_core.evaluation import effect
from d3po_core.evaluation.compare import STRENGTHS
from d3po_core.evaluation.effect import (
    Limits,
    correlation,
    draw_previews,
    preferred,
    prompt_adherence,
    share_at,
    share_kept,
)
from d3po_core.lora import load_lora
from d3po_core.picks import Pick
from d3po_core.rewards.features import Joined, Noted, Statistics
from d3po_core.rewards.judge import Head, Judge, JudgeFacts
from d3po_core.run import RoundSummary, Run
from d3po_core.run.blind_checks import strip_side
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from tests.toy import SHAPE, ToyDenoiser, ToyModel

QUICK = {"judge": False, "epochs": 2, "learning_rate": 0.05, "warmup": 0, "drift_limit": 0.0}
SAMPLE = SampleSettings(groups=6, candidates=3, steps=4, guidance_scale=3.0, held_out=0.0)


def rows(count: int, seed: int = 1) -> list[Conditioning]:
    prompts = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return [{"prompt": prompt[None]} for prompt in prompts]


def test_adherence_is_the_difference_of_errors():
    """Each error by hand, from the network's own branches at the same noises."""
    denoiser, latents, prompts = ToyDenoiser(), torch.randn(3, *SHAPE), rows(3)
    measured = prompt_adherence(denoiser, latents, prompts, 3.0)
    noise = torch.randn(2, *SHAPE, generator=effect.generator("adherence"))
    for ratio, of_ratio in zip(effect.ADHERENCE_RATIOS, measured.T, strict=True):
        for picture, prompt, found in zip(latents, prompts, of_ratio, strict=True):
            differences = []
            for n in noise:
                x, level = (picture + ratio * n)[None], torch.tensor([ratio], dtype=torch.float64)
                errors = [
                    (denoiser(x, level, {"prompt": of}, 1.0).cond - picture).square().mean()
                    for of in (torch.zeros(1, 4), prompt["prompt"])
                ]
                differences.append(float(errors[0] - errors[1]))
            assert float(found) == pytest.approx(sum(differences) / 2, rel=1e-3)


def test_adherence_without_a_second_branch_is_against_another_prompt():
    denoiser, latents, prompts = ToyDenoiser(), torch.randn(2, *SHAPE), rows(2)
    swapped = prompts[::-1]
    one = prompt_adherence(denoiser, latents, prompts, 1.0, swapped)
    other = prompt_adherence(denoiser, latents, swapped, 1.0, prompts)
    assert one.abs().min() > 1e-6
    assert torch.allclose(one, -other, atol=1e-6)
    assert not prompt_adherence(denoiser, latents, prompts, 1.0).any()  # with one prompt only, nothing can be said


def test_what_some_pictures_gain_does_not_make_up_for_what_others_lose():
    before = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]], dtype=torch.float64)  # its lower quarter is 2
    assert share_kept(before, before) == 1
    assert share_kept(before, before + 100) == pytest.approx(10 / 9)
    lost = torch.tensor([[1.0], [2.0], [3.0], [0.0], [500.0]], dtype=torch.float64)
    assert share_kept(before, lost) == pytest.approx((1 + 2 + 2 + 0 + 2) / 9)
    assert share_kept(-before, before) is None


def test_every_ratio_of_noise_counts_alike():
    """However large its errors are; one at which the prompt does not help the originals is left out."""
    before, lost = torch.ones(8, 2, dtype=torch.float64), torch.tensor([[0.6, 1.0]], dtype=torch.float64).repeat(8, 1)
    scale = torch.tensor([1000.0, 0.01], dtype=torch.float64)
    assert share_kept(before, lost) == pytest.approx(0.8)
    assert share_kept(before * scale, lost * scale) == pytest.approx(0.8)
    assert share_kept(before * torch.tensor([1.0, -1.0]), lost) == pytest.approx(0.6)


def test_a_ratio_at_which_nothing_is_sure_does_not_switch_the_limit_off():
    """Whatever its noise says, what is lost at the other ratio is seen."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        noise = torch.randn(2, 16, generator=rng, dtype=torch.float64) + 0.1
        before = torch.stack([torch.ones(16, dtype=torch.float64), noise[0]], 1)
        share = share_kept(before, torch.stack([0.3 * before[:, 0], noise[1]], 1))
        assert share is not None and share < 0.6


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, 0.95])
def test_the_correlation_of_pairs_has_a_closed_form(rho):
    """Sheppard's: two normal variables of correlation rho have the same sign with probability 1/2 + asin(rho) / pi."""
    assert correlation(0.5 + math.asin(rho) / math.pi, 2) == pytest.approx(rho, abs=0.02)


def test_favourites_of_more_are_easier_to_tell():
    """Against a simulation of people and judges."""
    rng = torch.Generator().manual_seed(3)
    liked, noise = torch.randn(2, 20_000, 4, generator=rng)
    scores = 0.6 * liked + 0.8 * noise
    best = liked.argmax(1, keepdim=True)
    right = (scores.gather(1, best) > scores).double().sum(1) / 3
    assert correlation(float(right.mean()), 4) == pytest.approx(0.6, abs=0.03)
    assert correlation(float(right.mean()), 2) > 0.65


def test_limits_allow_what_is_within_them():
    limits = Limits(kept=0.9, drifts={1.0: 0.2, 0.7: 0.05}, drift=0.1)
    assert not limits.allow(1.0, 1.0)
    assert limits.allow(0.7, 0.9)
    assert not limits.allow(0.7, 0.89)
    assert limits.allow(0.7, None)  # nothing is known of the prompt
    assert not limits.allow(0.7, math.nan)
    assert not limits.allow(0.85, 1.0)  # its drift is left out because it is no number
    assert Limits().allow(1.0, 0.0)


def test_what_is_lost_is_fitted_as_the_square_of_the_strength():
    assert share_at(0.5, {1.0: 0.6}) == pytest.approx(1 - 0.4 / 4)
    assert share_at(0.3, {0.9: 1 - 0.81 * 0.2, 0.4: 1 - 0.16 * 0.2}) == pytest.approx(1 - 0.09 * 0.2)
    strengths, losses = np.array([1.0, 0.7, 0.4]), np.array([0.3, 0.2, 0.02])
    (expected,), *_ = np.linalg.lstsq(strengths[:, None], losses / strengths, rcond=None)  # errors grow with s
    measured = dict(zip(strengths.tolist(), (1 - losses).tolist(), strict=True))
    assert share_at(0.7, measured) == pytest.approx(1 - expected * 0.49)


def judge_of_brightness(accuracy: float = 0.9) -> Judge:
    """The mean of luma, one nat for each standard deviation of it in what is drawn."""
    features = Statistics()
    count = len(features.scales[0])
    weights = torch.zeros(count, dtype=torch.float64)
    weights[0] = 1.0
    facts = JudgeFacts("statistics", accuracy, 5.0, 40, 0, 0, "", "", 1.0, 0)
    ones = torch.ones(count, dtype=torch.float64)
    return Judge(Head(features, torch.zeros_like(ones), 0.1 * ones, weights), facts)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    model = ToyModel()
    run = Run.create(tmp_path / "run", model={"identity": model.identity}, settings={})
    for _ in sample_groups(run, model, SAMPLE, ["one", "two"]):
        pass
    return run


def brightness(count: int, value: float) -> Tensor:
    """Return the features of `count` grey images of one level."""
    return Statistics()(torch.full((count, 3, 8, 8), value)).double()


def drawn_scores(run: Run, judge: Judge) -> dict[str, Tensor]:
    """Scores of all pictures of each prompt."""
    found: dict[str, list[Tensor]] = {}
    for group in run.groups.select():
        found.setdefault(group.prompt, []).append(
            judge.scores(effect.described(run, [group.id], judge.head.features)[group.id])
        )
    return {prompt: torch.cat(scores) for prompt, scores in found.items()}


def test_new_pictures_are_compared_with_all_originals_of_their_prompt(run):
    """A judge that errs never: the share of them that is darker, counted."""
    judge, prompts = judge_of_brightness(accuracy=1.0), ["one", "two", "one", "three"]
    before, levels = brightness(4, 0.4), [0.45, 0.5, 0.55, 0.6]
    after = torch.cat([brightness(1, level) for level in levels])
    known, own, new = drawn_scores(run, judge), judge.scores(before), judge.scores(after)
    originals = {"one": [*known["one"], own[0], own[2]], "two": [*known["two"], own[1]], "three": [own[3]]}
    shares = [sum(new[i] > each for each in originals[name]) / len(originals[name]) for i, name in enumerate(prompts)]
    assert 0 < float(sum(shares)) / 4 < 1
    assert preferred(run, judge, prompts, before, after) == pytest.approx(float(sum(shares)) / 4, abs=1e-3)


def test_what_a_lora_drew_is_no_original(run, monkeypatch):
    judge, before, after = judge_of_brightness(accuracy=1.0), brightness(1, 0.4), brightness(1, 0.5)
    unchanged = preferred(run, judge, ["one"], before, after)
    bright = ToyModel()
    monkeypatch.setattr(bright, "decode", lambda latents: torch.ones(len(latents), 3, 8, 8))
    for _ in sample_groups(run, bright, SAMPLE, ["one"], policy="0" * 64, round=2):
        pass
    assert preferred(run, judge, ["one"], before, after) == pytest.approx(unchanged, abs=1e-6)


def test_a_judge_that_errs_expects_what_people_would_say(run):
    """Against a simulation: what people like is rho times the standardised score, and what the judge does not see."""
    judge, rng = judge_of_brightness(accuracy=0.8), torch.Generator().manual_seed(0)
    rho, known = correlation(0.8, 3), drawn_scores(run, judge_of_brightness())
    spread = math.sqrt(
        sum(float(s.var() * (len(s) - 1)) for s in known.values()) / sum(len(s) - 1 for s in known.values())
    )
    before, after = brightness(1, 0.4), brightness(1, 0.5)
    originals = torch.cat([known["one"], judge.scores(before)])
    differences = rho * (judge.scores(after) - originals)[:, None] / spread
    unseen = torch.randn(2, 1, 200_000, generator=rng) * math.sqrt(1 - rho**2)
    simulated = float((differences + unseen[0] - unseen[1] > 0).double().mean())
    assert preferred(run, judge, ["one"], before, after) == pytest.approx(simulated, abs=0.005)
    doubted = preferred(run, judge_of_brightness(accuracy=0.5), ["one"], before, after)
    assert doubted == pytest.approx(0.5, abs=0.001)


def taught(run: Run, model: ToyModel, **settings: object) -> training.SavedRound:
    for group in run.groups.select():
        run.picks.add(group.id, Pick("favourite", (0,)))
    how = TrainSettings(**{**QUICK, **settings})
    saved = PicksRequest(how, LoraSettings()).train(run, model, "hooks", lambda report: Next.CONTINUE)
    assert saved is not None
    return saved


def test_a_round_is_used_at_the_greatest_strength_that_keeps_the_prompt(run, monkeypatch):
    """The file, the run's policy, the strip and the blind check are all of that strength."""
    model, shares = ToyModel(), iter([0.89, 0.85, 0.95])
    saved = taught(run, model)
    whole = load_lora(saved.path)[0]
    monkeypatch.setattr(effect, "share_kept", lambda before, after: next(shares))
    settled = settle_round(run, model, saved, SAMPLE, "hooks", lambda done, total: None)
    strength = STRENGTHS[2]
    assert settled.result.lora_strength == strength
    tensors = load_lora(settled.path)[0]
    for key, value in tensors.items():
        factor = strength if key.endswith(UP) else 1
        assert torch.allclose(value.float(), whole[key].float() * factor, atol=1e-6)
    (stored,) = [round.summary for round in run.rounds.all()]
    measured = dict(zip(STRENGTHS[:3], (0.89, 0.85, 0.95), strict=True))  # the second is too little, by all three
    assert stored.kept == settled.result.kept == tuple((each, share_at(each, measured)) for each in measured)
    assert stored.prompt_kept == share_at(strength, measured) > 0.9
    assert run.rounds.lora(run.rounds.current_policy()) == settled.path
    assert all(run.previews.has(1, strip_side(each)) for each in STRENGTHS)  # a person may still choose more
    assert len(run.blind_checks.last().pairs) == effect.CHECK_PAIRS
    words = round_outcome(settled)
    assert "Prompt kept: 93%." in words
    assert f"used at {strength:.0%}" in words


def test_a_round_that_keeps_the_prompt_stays_as_it_is(run, monkeypatch):
    model = ToyModel()
    saved = taught(run, model)
    monkeypatch.setattr(effect, "share_kept", lambda before, after: 1.04)
    settled = settle_round(run, model, saved, SAMPLE, "hooks", lambda done, total: None)
    assert settled.path == saved.path
    assert "Prompt kept: 100%." in round_outcome(settled)


def test_no_strength_that_keeps_it_gives_the_least(run, monkeypatch):
    model = ToyModel()
    saved = taught(run, model)
    monkeypatch.setattr(effect, "share_kept", lambda before, after: 0.1)
    assert settle_round(run, model, saved, SAMPLE, "hooks", lambda d, t: None).result.lora_strength == STRENGTHS[-1]


def test_a_strength_without_a_chance_is_not_drawn_for_the_check(run, monkeypatch):
    model, shares = ToyModel(), iter([0.4, 0.95])
    saved = taught(run, model)
    monkeypatch.setattr(effect, "share_kept", lambda before, after: next(shares))
    settled = settle_round(run, model, saved, SAMPLE, "hooks", lambda done, total: None)
    assert [strength for strength, _ in settled.result.kept] == [1.0, 0.4]  # 0.6 is lost at 1, 0.1 at its root
    assert all(run.previews.has(1, strip_side(each)) for each in STRENGTHS)


def test_without_a_limit_a_lost_prompt_weakens_nothing(run, monkeypatch):
    model = ToyModel()
    saved = taught(run, model, keep_prompt=0.0)
    monkeypatch.setattr(effect, "share_kept", lambda before, after: -0.5)
    assert settle_round(run, model, saved, SAMPLE, "hooks", lambda d, t: None).result.lora_strength == 1


def test_a_strength_at_which_the_prompt_is_seen_to_be_lost_is_not_used(run, monkeypatch):
    """Though what is lost at full strength says that it could be."""
    model, shares = ToyModel(), iter([0.4, 0.8, 0.7])
    saved = taught(run, model)
    monkeypatch.setattr(effect, "share_kept", lambda before, after: next(shares))
    assert settle_round(run, model, saved, SAMPLE, "hooks", lambda d, t: None).result.lora_strength == STRENGTHS[-1]


def test_too_much_drift_weakens_it_too(run, monkeypatch):
    model = ToyModel()
    saved = taught(run, model, drift_limit=1e-6)
    monkeypatch.setattr(effect, "share_kept", lambda before, after: 1.0)
    assert settle_round(run, model, saved, SAMPLE, "hooks", lambda d, t: None).result.lora_strength == STRENGTHS[-1]


def test_the_pictures_of_all_strengths_are_of_the_same_seeds(run, monkeypatch):
    """At strength 0 after is before, picture by picture; and no LoRA is left on the network."""
    model, seen = ToyModel(), list[Tensor]()
    saved = taught(run, model)
    nothing = {key: type(layer)(layer.down, 0 * layer.up, layer.alpha) for key, layer in saved.result.weights.items()}
    monkeypatch.setattr(effect, "share_kept", lambda before, after: seen.extend([before, after]) or 1.0)
    draw_previews(run, model, 1, nothing, SAMPLE, "hooks", lambda done, total: None)
    assert torch.equal(*seen)
    before, after = (run.previews.image(1, 2, side).read_bytes() for side in ("before", strip_side(1.0)))
    assert before == after


class Means:
    """Mean colours, of which a run might have noted."""

    name, scales = "means 1f", [torch.ones(3).double()]

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


@pytest.mark.parametrize("heard", [True, False])
def test_new_pictures_are_seen_as_the_runs_were(run, monkeypatch, heard):
    """In the order of the judge's kinds, each of its own picture; without the network's part nothing is expected."""
    model, decoded, seen = ToyModel(), list[Tensor](), list[Tensor]()
    saved, decode = taught(run, model), model.decode
    monkeypatch.setattr(model, "decode", lambda latents: (decoded.append(decode(latents)), decoded[-1])[1])
    monkeypatch.setattr(effect, "share_kept", lambda before, after: 1.0)
    monkeypatch.setattr(effect, "preferred", lambda run, judge, prompts, *sides: (seen.extend(sides), 0.7)[1])

    def described(denoiser: object, latents: Tensor, *how: object) -> Tensor | None:
        return latents.flatten(1)[:, :5] if heard else None

    monkeypatch.setattr(effect, "describe", described)
    known = judge_of_brightness()
    joined = Joined([Statistics(), Noted("means 1f", 3), Noted("network", 5)])
    judge = dataclasses.replace(known, head=dataclasses.replace(known.head, features=joined))
    found = draw_previews(run, model, 1, saved.result.weights, SAMPLE, "hooks", lambda done, total: None)
    assert found.win(judge, [Means()]) == (0.7 if heard else None) and found.strength == 1.0
    if heard:
        pictures = torch.cat(decoded)[:32]  # before, then after at full strength
        expected = torch.cat([Statistics()(pictures).double(), pictures.mean((2, 3)).double()], 1)
        assert torch.allclose(torch.cat(seen)[:, :-5], expected, atol=1e-5)
        assert torch.cat(seen)[:, -5:].std(0).min() > 0


def test_words_say_what_was_not_moved_and_nothing_of_what_is_not_known():
    assert effect_in_words(RoundSummary()) == []
    words, unknown = effect_in_words(RoundSummary(win=0.51))
    assert words.startswith("Your taste was understood, and yet pictures hardly changed")
    assert unknown.startswith("Whether the prompt is kept could not be measured")
    weaker = RoundSummary(win=0.51, kept=((0.25, -0.3),), lora_strength=0.25)  # it is the limits that hold it back
    assert effect_in_words(weaker)[:2] == ["You would prefer 51% of the new pictures.", "Prompt kept: 0%."]
    assert effect_in_words(RoundSummary(win=0.78, kept=((1.0, 0.96),))) == [
        "You would prefer 78% of the new pictures.",
        "Prompt kept: 96%.",
    ]


def test_a_summary_keeps_what_pictures_told():
    summary = RoundSummary(kept=((1.0, 0.7), (0.7, 0.93)), win=0.8)
    assert RoundSummary.from_json(summary.to_json()) == summary


def test_prompts_are_encoded_with_the_negative_prompt(run):
    """As they are drawn."""
    model = ToyModel()
    add_prompts(run, model, ["one"], "")
    asked = []
    encode = model.encode
    model.encode = lambda prompts, negative="": asked.append(negative) or encode(prompts, negative)  # type: ignore
    saved = taught(run, model)
    settings = SampleSettings(**{**vars(SAMPLE), "negative": "blurred"})
    settle_round(run, model, saved, settings, "hooks", lambda done, total: None)
    assert asked == ["blurred"]


def test_without_a_vae_the_strength_is_found_all_the_same(run, monkeypatch):
    """Nothing can be shown, but the prompt is not lost for that."""
    model, asked = ToyModel(), list[float]()
    saved = taught(run, model)
    monkeypatch.setattr(model, "decode", lambda latents: pytest.fail("decoded"))
    monkeypatch.setattr(effect, "share_kept", lambda before, after: asked.append(1) or [0.88, 0.95][len(asked) - 1])
    settled = settle_round(run, model, saved, SAMPLE, "hooks", lambda done, total: None, decodes=False)
    assert settled.result.lora_strength == STRENGTHS[1]
    assert not run.previews.prompts(1)
    assert run.blind_checks.last() is None


def test_a_drawing_that_is_stopped_leaves_no_lora_that_has_drifted_far(run, monkeypatch):
    model = ToyModel()
    saved = taught(run, model, drift_limit=1e-6)

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        settle_round(run, model, saved, SAMPLE, "hooks", stop)
    (stored,) = [round.summary for round in run.rounds.all()]
    assert stored.lora_strength == STRENGTHS[-1]
    assert run.rounds.lora(run.rounds.current_policy()) != saved.path


def test_an_estimate_that_is_stopped_leaves_the_strength_as_it_was_found(run, monkeypatch):
    model, shares = ToyModel(), iter([0.89, 0.85, 0.95])
    saved = taught(run, model)

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(effect, "share_kept", lambda before, after: next(shares))
    monkeypatch.setattr(training, "own_judge", stop)
    with pytest.raises(KeyboardInterrupt):
        settle_round(run, model, saved, SAMPLE, "hooks", lambda done, total: None)
    (stored,) = [round.summary for round in run.rounds.all()]
    assert stored.lora_strength == STRENGTHS[2] and len(stored.kept) == 3 and stored.win is None


def test_a_strength_that_a_person_chose_takes_no_estimate_over(run, monkeypatch):
    model = ToyModel()
    saved = taught(run, model)
    run.rounds.note_effect(1, ((1.0, 0.95), (0.7, 0.97)), 0.8)
    training.scale_lora(run, 1, 0.7)
    (stored,) = [round.summary for round in run.rounds.all()]
    assert (stored.win, stored.prompt_kept) == (None, 0.97)
    assert saved.path.exists()
