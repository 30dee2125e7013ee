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
from d3po_core.errors import D3POError
from d3po_core.models import DiffusersModel
from d3po_core.picks import Pick
from d3po_core.rewards import description
from d3po_core.rewards.description import group_features, note_features, seen_in
from d3po_core.rewards.features import NETWORK, Joined, Noted, Statistics
from d3po_core.rewards.judge import fit_judge, judge_scores, own_judge
from d3po_core.run import Run
from d3po_core.settings import LoraSettings, SampleSettings, TrainSettings
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
    blind, seeing = fit_judge(run), own_judge(run)
    assert blind.facts.z < 2 < 4 < seeing.facts.z
    assert seeing.facts.features == "statistics+network"
    found = judge_scores(seeing, run, scores)
    assert all(int(torch.tensor(found[name]).argmax()) == int(scores[name].argmax()) for name in scores)
    assert understand(run).right == pytest.approx(seeing.facts.accuracy)
    assert own_judge(run, kinds=()).facts == blind.facts


def test_what_one_group_lacks_is_not_looked_at(tmp_path):
    """Else the groups that lack it would teach nothing."""
    run, scores = hidden_taste(tmp_path / "run")
    (run.folder / "groups" / min(scores) / "features.safetensors").unlink()
    assert own_judge(run).facts.features == "statistics"
    run.groups.save_features(min(scores), {NETWORK: torch.zeros(3, 11)})  # of another model
    assert own_judge(run).facts.features == "statistics"


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
    kind = seen_in(run, [group_id])
    assert kind.name == "statistics+means 1f"
    expected = [
        np.asarray(Image.open(run.groups.image_path(group_id, i)).convert("RGB")).mean((0, 1)) for i in range(3)
    ]
    found = group_features(run, group_id, kind)[:, -3:]
    assert found.numpy() == pytest.approx(np.stack(expected) / 255, abs=1e-5)
    monkeypatch.setattr(description, "read_images", lambda *args: pytest.fail("they are known"))
    note_features(run, Means())


def test_drawing_notes_what_the_network_sees_and_teaching_makes_up_for_it(tmp_path):
    pipeline = tiny_sd()
    model = DiffusersModel(pipeline)
    run = Run.create(tmp_path / "run", model={"identity": model.identity, "family": "diffusion"}, settings={})
    settings = SampleSettings(groups=2, candidates=2, steps=3, held_out=0.0, batch=3)
    drawn = [report.group_id for report in sample_groups(run, model, settings, ["a cat", "two dogs"])]
    noted = {name: run.groups.features(name)[NETWORK] for name in drawn}
    assert all(len(each) == 2 and not torch.equal(each[0], each[1]) for each in noted.values())
    for name in drawn:  # as in a run of an earlier version
        (run.folder / "groups" / name / "features.safetensors").unlink()
    for how, reward, there in (({"judge": False}, None, False), ({}, None, True)):
        PicksRequest(TrainSettings(**how), LoraSettings(), reward).prepared(run, model)
        assert all((NETWORK in run.groups.features(name)) == there for name in drawn)
    for name in drawn:
        assert torch.allclose(
            run.groups.features(name)[NETWORK], noted[name], atol=1e-3
        )  # from latents in half precision


def test_a_network_that_cannot_be_heard_is_done_without(tmp_path):
    """The toy's only layer gets vectors, which have no places."""
    run = Run.create(tmp_path / "run", model={"identity": "toy", "family": "diffusion"}, settings={})
    drawn = [r.group_id for r in sample_groups(run, ToyModel(), SampleSettings(groups=1, steps=4), ["one"])]
    PicksRequest(TrainSettings(), LoraSettings()).prepared(run, ToyModel())
    assert run.groups.features(drawn[0]) == {}
