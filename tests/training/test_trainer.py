"""A round from picks to LoRA on a toy model, through a real run on disk: learnt, predicted, doubted, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from d3po_core.app.sampling import sample_groups
from d3po_core.diffusion.rollout import from_tensors
from d3po_core.errors import D3POError
from d3po_core.lora import LayerWeights, LoraWeights
from d3po_core.lora.attachment import applied
from d3po_core.lora.weights import blend
from d3po_core.picks import Pick
from d3po_core.rewards.judge import fit_judge
from d3po_core.run import Run
from d3po_core.settings import replace
from d3po_core.training.round_trainer import save_round
from d3po_core.training.trainer import doubts
from tests.toy import ToyModel
from tests.training.picked import PROMPTS, SAMPLE, copied, evidence, flat, picked_run, trainer
from tests.training.rounds import train_to_end


def flipped(run: Run, held_out: bool) -> None:
    """Turn picks round: the last candidate is preferred, or the first where the last was."""
    for group in run.groups.select():
        if group.held_out == held_out:
            (stored,) = [each for each in run.picks.standing() if each.group_id == group.id]
            other = 0 if stored.pick.order[0] == group.candidates - 1 else group.candidates - 1
            run.picks.add(group.id, Pick("favourite", (other,)))


def log_ratios(model: ToyModel, run: Run, group_id: str, weights: LoraWeights) -> list[float]:
    """log pi - log pi_base of each candidate's recorded steps, conditional, from torch's normal distribution."""
    t, steps = from_tensors(run.groups.trajectory(group_id))
    conditioning = run.prompts.conditioning(run.groups.get(group_id).prompt_id)

    def density(candidate: int, step: int) -> Tensor:
        x, x_next = t.x[candidate, step][None].float(), t.x[candidate, step + 1][None].float()
        denoised = model.denoiser(x, steps.sigma[step][None], conditioning, 3.0, guided=False).cond
        mean = float(steps.x_coef[step]) * x + float(steps.denoised_coef[step]) * denoised
        return Normal(mean, float(steps.std[step])).log_prob(x_next).sum()

    places = [[(c, k) for k in range(len(steps.sigma))] for c in range(len(t.x))]
    with torch.no_grad():
        before = [sum(float(density(*place)) for place in of) for of in places]
        with applied(model.denoiser, weights):
            after = [sum(float(density(*place)) for place in of) for of in places]
    return [b - a for a, b in zip(before, after, strict=True)]


def test_a_round_says_how_it_goes(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    work = trainer(run, model)
    reports = train_to_end(work)
    result = work.result()
    assert [r.update for r in reports] == list(range(1, 3 * 21 + 1))  # a group of four has six pairs, and batch is 4
    assert {r.total for r in reports} == {63} and [r.epoch for r in reports] == [0] * 21 + [1] * 21 + [2] * 21
    facts = fit_judge(run).facts
    assert facts.groups == 24 and facts.z > 2.75  # or less would be kept
    assert (result.z, result.guessed_of, result.strength) == (facts.z, 24, 1.0)
    assert result.guessed == pytest.approx(facts.accuracy * 24)
    assert result.reason == "Every pick was used."
    assert [strength for strength, _ in result.strength_scan] == [1.0, 0.85, 0.7, 0.55, 0.4, 0.25]
    assert result.strength_scan[0][1] > result.strength_scan[2][1] > 0
    assert set(result.figures) == {"loss", "margin", "clip_fraction", "winner"}
    assert len(work.run.metrics.read()) == len(reports)


def test_held_out_picks_are_predicted_once_at_the_end(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    work = trainer(run, model, judge=False, credit="step")
    reports = train_to_end(work)
    assert [r.update for r in reports if r.hidden] == [len(reports)]
    weights, expected, margins, winners = work.result().weights, [], [], []
    for group in sorted((group for group in run.groups.select() if group.held_out), key=lambda group: group.id):
        (best,) = [each.pick.order[0] for each in run.picks.standing() if each.group_id == group.id]
        ratios = log_ratios(model, run, group.id, weights)
        others = [ratios[best] - ratio for c, ratio in enumerate(ratios) if c != best]
        expected.append(sum(difference > 0 for difference in others) / 3)
        margins.append(20.0 / 18 * sum(others) / 3)  # beta, and the latents' elements
        winners.append(ratios[best] / 18 / len(run.groups.trajectory(group.id)["cond"][0]))
    assert len(expected) == 3 and reports[-1].hidden.hits == pytest.approx(expected)
    assert reports[-1].hidden.margins == pytest.approx(margins, rel=1e-2, abs=1e-2)  # recorded in float16
    assert work.result().figures["margin"] == reports[-1].hidden.margin
    assert reports[-1].hidden.winner == pytest.approx(sum(winners) / 3, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("trained_steps", [0, 1])
@pytest.mark.parametrize("picks", ["bright", "flags"])
def test_learns_its_picks(tmp_path: Path, picks: str, trained_steps: int) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model, picks)
    rate = 0.1 if trained_steps else 3e-2  # each step is used once, or ten times
    work = trainer(run, model, epochs=10, judge=False, trained_steps=trained_steps, learning_rate=rate)
    with work:
        list(work.steps())
        assert work._fit.measure(work.trained_on).accuracy > 0.8
    assert flat(work.result().weights).abs().max() > 0


@pytest.mark.parametrize("picks", ["luck", "too few"])
def test_only_what_the_judge_has_no_evidence_for_is_left_alone(tmp_path: Path, picks: str) -> None:
    """Picks at random leave the model as it was; picks that are too few for a judge teach all the same."""
    model = ToyModel()
    run = picked_run(tmp_path / "run", model, picks="none", settings=replace(SAMPLE, {"groups": 20}))
    rng = torch.Generator().manual_seed(1)
    for group in run.groups.select()[: 20 if picks == "luck" else 15]:
        run.picks.add(group.id, Pick("favourite", (int(torch.randint(4, (), generator=rng)),)))
    work = trainer(run, model)
    before = flat(work.result().weights)
    with work:
        reports, result = list(work.steps()), work.result()
        saved = save_round(work)
    assert torch.equal(flat(result.weights), before) == (picks == "luck")
    assert run.picks.untaught() == 0 and saved.path.is_file()
    if picks == "luck":
        assert reports == [] and not result.changed and work.trained_on == [] and run.metrics.read() == []
        assert result.strength == 0 and result.z is not None and result.z < 1.75 and result.strength_scan == ()
        assert saved.result.strength_scan == ()  # saving measures nothing where nothing was learnt
        assert result.reason == (
            "Hidden picks were not predicted better than by chance, so the model was left as it was."
        )
        assert run.rounds.all()[0].summary.z == result.z
    else:
        assert result.changed and result.strength == 1 and result.z is None
        assert result.guessed_of == len(work.data.held_out)  # what the LoRA itself predicts
        assert 0 < len(work.trained_on) <= 15 and result.reason == "Every pick was used."


def test_thin_evidence_keeps_a_part_of_what_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, learnt = ToyModel(), {}
    run = picked_run(tmp_path / "run", model)
    for z in (2.0, 2.25, 9.0):
        with monkeypatch.context() as patched:
            evidence(patched, z)
            work = trainer(copied(run, tmp_path / str(z)), model)
            start = flat(work.result().weights)
            train_to_end(work)
            learnt[z] = work.result()
    assert [result.strength for result in learnt.values()] == [0.25, 0.5, 1.0]
    whole = flat(learnt[9.0].weights) - start
    assert whole.abs().max() > 0.01
    for z, share in ((2.0, 0.25), (2.25, 0.5)):
        assert torch.allclose(flat(learnt[z].weights) - start, share * whole, atol=1e-6)
        thin = f"The evidence is thin, so {share:.0%} of what was learnt was kept."
        assert learnt[z].reason == f"Every pick was used. {thin}"
    drifts = [result.strength_scan[0][1] for result in learnt.values()]
    assert drifts[0] < drifts[1] < drifts[2]  # of what is kept, not of what was learnt


@pytest.mark.parametrize(("share", "said"), [(0.0, "left as it was"), (0.42, "42%"), (1.0, "")])
def test_a_person_is_told_what_the_evidence_allowed(share: float, said: str) -> None:
    assert said in " ".join(doubts(share)) and bool(doubts(share)) == (share < 1)


def test_evidence_decides_how_much_is_kept() -> None:
    start = {"a": LayerWeights(torch.ones(2, 3), torch.zeros(4, 2), 2.0)}
    end = {"a": LayerWeights(torch.ones(2, 3) * 3, torch.ones(4, 2), 2.0)}
    assert torch.equal(flat(blend(start, end, 0.0)), flat(start))
    assert torch.equal(flat(blend(start, end, 1.0)), flat(end))
    assert torch.equal(blend(start, end, 0.5)["a"].up, torch.full((4, 2), 0.5))


def test_training_leaves_no_trace_in_the_network(tmp_path: Path) -> None:
    model = ToyModel()
    work = trainer(picked_run(tmp_path / "run", model), model)
    x, sigma, prompt = torch.randn(1, 2, 3, 3), torch.tensor([3.0]), model.encode(["one"])[0]
    before = model.denoiser(x, sigma, prompt, 2.0).guided
    names = list(model.denoiser.module.state_dict())
    train_to_end(work)
    assert torch.equal(model.denoiser(x, sigma, prompt, 2.0).guided, before)
    assert list(model.denoiser.module.state_dict()) == names


@pytest.mark.parametrize(("picks", "message"), [("none", "Nothing has been picked"), ("tie", "None of the 24 picks")])
def test_no_usable_pair_is_said(tmp_path: Path, picks: str, message: str) -> None:
    model = ToyModel()
    with pytest.raises(D3POError, match=message):
        trainer(picked_run(tmp_path / "run", model, picks), model)


def test_another_base_model_is_noticed(tmp_path: Path) -> None:
    run = picked_run(tmp_path / "run", ToyModel())
    other = ToyModel(seed=1)
    with pytest.raises(D3POError, match="another base model"):
        trainer(run, other)
    assert "_forward_hooks" not in other.denoiser.module.attn1["to_q"].__dict__ or not (
        other.denoiser.module.attn1["to_q"]._forward_hooks
    )


def test_pictures_of_another_model_are_noticed_wherever_they_are(tmp_path: Path) -> None:
    """A host notes what its graph was; a group of each is compared."""
    model, other = ToyModel(), ToyModel(seed=1)
    run = picked_run(tmp_path / "run", model)
    for sampled in sample_groups(run, other, replace(SAMPLE, {"groups": 2}), PROMPTS, notes={"graph": "changed"}):
        run.picks.add(sampled.group_id, Pick("favourite", (0,)))
    for each in (model, other):
        with pytest.raises(D3POError, match="another base model"):
            trainer(run, each)
    assert len(train_to_end(trainer(run, model, reevaluate_reference=True))) > 3


def test_held_out_groups_are_never_trained_on(tmp_path: Path) -> None:
    """Turning all their picks round changes how well they are predicted, and nothing that is learnt."""
    model, outcomes = ToyModel(), []
    picked = picked_run(tmp_path / "run", model)
    for turned in (False, True):
        run = copied(picked, tmp_path / str(turned))
        held_out = {group.id for group in run.groups.select() if group.held_out}
        if turned:
            flipped(run, held_out=True)
        work = trainer(run, model, judge=False)
        outcomes.append((train_to_end(work)[-1].hidden, flat(work.result().weights)))
        assert len(held_out) == 3  # one in every eight
        assert len(work.trained_on) == 21 and not held_out & set(work.trained_on)
    assert torch.equal(outcomes[0][1], outcomes[1][1])
    assert outcomes[0][0].margin != outcomes[1][0].margin and len(outcomes[0][0].hits) == 3


def test_what_nobody_has_seen_teaches_too(tmp_path: Path) -> None:
    model = ToyModel()
    run = picked_run(tmp_path / "run", model)
    unseen = [found.group_id for found in sample_groups(run, model, replace(SAMPLE, {"groups": 8}), PROMPTS)]
    unseen = [group_id for group_id in unseen if not run.groups.get(group_id).held_out]
    work = trainer(run, model)
    reports = train_to_end(work)
    assert len(unseen) == 7 and set(unseen) < set(work.trained_on) and len(work.trained_on) == 28
    assert reports[-1].total == 3 * 28 and len(reports[-1].hidden.hits) == 3  # the others held out were not judged
