"""What is given away: it can be used, and holds nothing personal that was not asked for."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from d3po_core.errors import D3POError
from d3po_core.exchange.lines import export_dataset
from d3po_core.exchange.share import share
from d3po_core.lora import load_lora, save_lora
from d3po_core.picks import Pick
from d3po_core.run import RoundSummary, Run, policy_id
from tests.lora_networks import tiny_sd1, trained
from tests.run_helpers import make_run, picture

SECRET = "my secret prompt"


def taught(folder: Path) -> Run:
    run = make_run(folder / "Anna's taste", groups=0)
    from tests.run_helpers import put_group

    for number in range(3):
        put_group(run, prompt_id=run.prompts.add(f"{SECRET} {number}"))
    for group in run.groups.select():
        run.picks.add(group.id, Pick("favourite", (1,)), who="Anna")
    network = tiny_sd1()
    weights = trained(network)
    file = save_lora(run.folder / "loras" / "Anna-round1.safetensors", weights, network, extra={"comment": SECRET})
    number = run.rounds.begin({})
    run.rounds.finish(number, file, policy_id(file), RoundSummary(guessed=8, guessed_of=10))
    run.previews.save(number, [f"{SECRET} 0"], {"before": [picture(0, 0)], "after": [picture(0, 1)]})
    return run


def test_nothing_personal_is_given_away_by_itself(tmp_path: Path) -> None:
    run = taught(tmp_path)
    with zipfile.ZipFile(share(run, tmp_path / "out.zip")) as archive:
        names = archive.namelist()
        whole = b"".join(archive.read(name) for name in names) + " ".join(names).encode()
        archive.extract("taste.safetensors", tmp_path)
    assert set(names) == {"taste.safetensors", "before-after.png", "README.md"}
    for secret in (SECRET, "Anna", str(tmp_path), "somewhere"):
        assert secret.encode() not in whole
    tensors, metadata = load_lora(tmp_path / "taste.safetensors")
    original, _ = load_lora(run.rounds.lora(run.rounds.current_policy()))
    assert all(torch.equal(tensors[key], original[key]) for key in original)
    assert metadata["ss_output_name"] == "taste" and metadata["ss_base_model_version"] == "sd_v1"


def test_what_is_asked_for_is_in_it(tmp_path: Path) -> None:
    run = taught(tmp_path)
    zipped = share(run, tmp_path / "out.zip", with_name=True, with_prompts=True, with_picks=True)
    with zipfile.ZipFile(zipped) as archive:
        assert "Anna-s-taste.safetensors" in archive.namelist()
        assert SECRET in archive.read("prompts.txt").decode() and SECRET in archive.read("README.md").decode()
        assert len(json.loads(archive.read("picks.json"))) == 3
        assert "Anna" not in archive.read("picks.json").decode()


def test_nothing_can_be_shared_before_anything_was_taught(tmp_path: Path) -> None:
    with pytest.raises(D3POError, match="not been taught"):
        share(make_run(tmp_path / "run"), tmp_path / "out.zip")


def test_a_data_set_tells_who_beat_whom(tmp_path: Path) -> None:
    run = taught(tmp_path)
    assert export_dataset(run, tmp_path / "data") == 6
    lines = [json.loads(line) for line in (tmp_path / "data" / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [line["picks"][0]["better_than"] for line in lines] == [[], [0]] * 3
    for line in lines:
        assert (tmp_path / "data" / line["file_name"]).is_file() and line["text"].startswith(SECRET)
