"""What is known of a run's pictures: kept once it is known, and seen by a judge where all groups have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3po_core.app.sampling import sample_groups
from d3po_core.app.training import PicksRequest
from d3po_core.app.understanding import understand
from d3po_core.diffusion.image_model import ImageModel
from d3po_core.errors import D3POError
from d3po_core.models import DiffusersModel
from d3po_core.picks import Pick
from d3po_core.rewards import description
from d3po_core.rewards.activations import describe
from d3po_core.rewards.description import group_features, note_features, seen_in
from d3po_core.rewards.features import NETWORK, Joined, Noted, Statistics
from d3po_core.rewards.judge import judge_scores, own_judge
from d3po_core.run import Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
from d3po_core.training.preferences import AnotherModel
from tests.rewards.test_judge import coloured_run
from tests.tiny_pipelines import tiny_sd
from tests.toy import ToyModel

STATISTICS = Statistics()


def features_file(run: Run, group_id: str) -> Path:
    return run.folder / "groups" / group_id / "features.safetensors"


def measured(run: Run, group_id: str) -> Tensor:
    """A group's statistics, from its files alone."""
    paths = sorted((run.folder / "groups" / group_id).glob("*.png"))
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return STATISTICS(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).double()


@pytest.fixture
def group(tmp_path: Path) -> tuple[Run, str]:
    """A run, and the id of its only group."""
    run = coloured_run(tmp_path / "run", 1)
    return run, run.groups.select()[0].id


def test_features_on_disk_are_those_that_are_computed(group, monkeypatch):
    run, group_id = group
    assert not features_file(run, group_id).exists()
    first = group_features(run, group_id, STATISTICS)
    assert torch.equal(first, measured(run, group_id)) and features_file(run, group_id).is_file()
    monkeypatch.setattr(description, "read_images", lambda *args: pytest.fail("they are known"))
    assert torch.equal(group_features(run, group_id, STATISTICS), first)


@pytest.mark.parametrize("found", ["damaged", "of another version", "empty"])
def test_features_that_cannot_be_used_are_computed_anew(group, monkeypatch, found):
    run, group_id = group
    expected = group_features(run, group_id, STATISTICS)
    if found == "of another version":
        run.groups.save_features(group_id, {"statistics": torch.zeros(3, 7), "others": torch.ones(3, 2)})
    else:
        features_file(run, group_id).write_bytes(b"not a tensor" if found == "damaged" else b"")
    assert torch.equal(group_features(run, group_id, STATISTICS), expected)
    monkeypatch.setattr(description, "read_images", lambda *args: pytest.fail("they are known again"))
    assert torch.equal(group_features(run, group_id, STATISTICS), expected)
    assert ("others" in run.groups.features(group_id)) == (found == "of another version")


def test_features_of_a_folder_are_not_kept(group):
    """The folder's files may change under the same name."""
    run, group_id = group

    class Means:
        name, scales = "clip:/some/where", [torch.ones(3).double()]

        def __call__(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    assert group_features(run, group_id, Means()).shape == (3, 3)
    assert not features_file(run, group_id).exists()


def test_a_disk_that_is_full_costs_time_only(group, monkeypatch):
    def full(*args: object) -> None:
        raise D3POError("The disk is full.")

    run, group_id = group
    monkeypatch.setattr(type(run.groups), "save_features", full)
    assert torch.equal(group_features(run, group_id, STATISTICS), measured(run, group_id))


class Means:
    """Mean colours, by a name that says what made them."""

    name, scales = "means 1f", [torch.ones(3).double()]

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def hidden_taste(folder: Path, groups: int = 40) -> tuple[Run, dict[str, Tensor]]:
    """A run whose favourites have nothing to do with their pixels, and the scores (C,) that they were picked by."""
    run, rng, scores = coloured_run(folder, groups), torch.Generator().manual_seed(2), dict[str, Tensor]()
    for group in run.groups.select():
        noted = torch.randn(group.candidates, 12, generator=rng)
        run.groups.save_features(group.id, {NETWORK: noted})
        scores[group.id] = noted[:, 3] - noted[:, 7]
        run.picks.add(group.id, Pick("favourite", (int(scores[group.id].argmax()),)))
    return run, scores


def test_a_judge_sees_what_only_the_network_has_seen(tmp_path):
    run, scores = hidden_taste(tmp_path / "run")
    blind, seeing = own_judge(run), own_judge(run, [NETWORK, "what nobody noted"])
    assert blind.facts.z < 2 < 4 < seeing.facts.z
    assert (blind.facts.features, seeing.facts.features) == ("statistics", "statistics+network")
    found = judge_scores(seeing, run, scores)
    assert all(int(torch.tensor(found[name]).argmax()) == int(scores[name].argmax()) for name in scores)
    assert understand(run).right == pytest.approx(blind.facts.accuracy)  # the same figure before and after Teach


def test_a_few_groups_that_lack_something_are_left_out_and_more_do_without(tmp_path):
    run, scores = hidden_taste(tmp_path / "run")
    lacking = sorted(scores)
    for name in lacking[:4]:
        (run.folder / "groups" / name / "features.safetensors").unlink()
    judge = own_judge(run, [NETWORK])
    assert judge.facts.features == "statistics+network" and judge.facts.groups == 36
    assert judge_scores(judge, run, scores).keys() == set(lacking[4:])
    run.groups.save_features(lacking[4], {NETWORK: torch.zeros(3, 11)})  # of another network
    judge = own_judge(run, [NETWORK])
    assert judge.facts.features == "statistics" and judge.facts.groups == 40


def test_several_kinds_are_weighed_alone_and_beside_the_first():
    first = STATISTICS.scales
    joined = Joined([STATISTICS, Noted("a", 4), Noted("b", 9)])
    width, a, b = len(first[0]), torch.full((4,), 0.5).double(), torch.full((9,), 9**-0.5).double()
    none, zero_a, zero_b = torch.zeros(width).double(), 0 * a, 0 * b
    expected = [torch.cat([scale, zero_a, zero_b]) for scale in first]
    expected += [torch.cat(parts) for parts in ((none, a, zero_b), (first[2], a, zero_b))]
    expected += [torch.cat(parts) for parts in ((none, zero_a, b), (first[2], zero_a, b))]
    assert len(joined.scales) == len(expected)
    assert all(torch.allclose(*both) for both in zip(joined.scales, expected, strict=True))
    assert joined.name == "statistics+a+b"


def test_features_are_noted_once_and_by_their_name(group, monkeypatch):
    run, group_id = group
    note_features(run, Means())
    kind = seen_in(run, [group_id], [Means.name])
    assert kind.name == "statistics+means 1f"
    images = [Image.open(run.groups.image_path(group_id, candidate)).convert("RGB") for candidate in range(3)]
    expected = np.stack([np.asarray(image).mean((0, 1)) for image in images]) / 255
    assert group_features(run, group_id, kind)[:, -3:].numpy() == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(description, "read_images", lambda *args: pytest.fail("they are known"))
    note_features(run, Means())


def drawn_run(folder: Path, model: ImageModel, groups: int = 16) -> Run:
    run = Run.create(folder, model={"identity": model.identity, "family": "diffusion"}, settings={})
    settings = SampleSettings(groups=groups, candidates=2, steps=3, held_out=0.0, batch=3)
    for report in sample_groups(run, model, settings, ["a cat", "two dogs"]):
        run.picks.add(report.group_id, Pick("favourite", (0,)))
    return run


def opened(run: Run, model: ImageModel, **how: object) -> None:
    """Begin a round, and leave it."""
    PicksRequest(TrainSettings(**how), LoraSettings()).open(run, model, "hooks").__exit__(None, None, None)


def noted(run: Run) -> list[Tensor | None]:
    return [run.groups.features(group.id).get(NETWORK) for group in run.groups.select()]


def test_a_round_begins_by_noting_what_the_network_sees(tmp_path):
    model = DiffusersModel(tiny_sd())
    run = drawn_run(tmp_path / "run", model)
    opened(run, model, judge=False)
    assert set(noted(run)) == {None}
    opened(run, model)
    first = noted(run)
    assert all(len(each) == 2 and not torch.equal(each[0], each[1]) for each in first)
    latents = [run.groups.trajectory(group.id)["latents"] for group in run.groups.select()]
    rows = [run.prompts.conditioning(group.prompt_id) for group in run.groups.select()]
    alone = [describe(model.denoiser, x[:1], [row], 7.5) for x, row in zip(latents, rows, strict=True)]
    assert all(torch.allclose(one[0], both[0], atol=1e-4) for one, both in zip(alone, first, strict=True))


def test_another_model_notes_nothing(tmp_path):
    """It would stay in the run for good."""
    run = drawn_run(tmp_path / "run", DiffusersModel(tiny_sd()))
    other = DiffusersModel(tiny_sd(seed=1))
    with pytest.raises(AnotherModel):
        opened(run, other)
    opened(run, other, reevaluate_reference=True)
    assert set(noted(run)) == {None}


def test_a_network_that_cannot_be_heard_is_done_without(tmp_path):
    """The toy's only layer gets vectors, which have no places."""
    run = drawn_run(tmp_path / "run", ToyModel())
    opened(run, ToyModel())
    assert set(noted(run)) == {None}
