"""LoRA files: what plain diffusers makes of them, every form that is read, metadata and hashes, bad input."""

from __future__ import annotations

import hashlib
import inspect
import json
import struct
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from d3po_core import __version__
from d3po_core.errors import D3POError
from d3po_core.lora import LoraWeights, attach, import_lora, load_lora, save_lora, unused_path
from d3po_core.settings import LoraSettings
from tests import tiny_pipelines
from tests.lora_networks import (
    NETWORKS,
    active_adapters,
    delta,
    fill,
    load_with_diffusers,
    predict,
    relative,
    same,
    tiny_flux,
    tiny_sd1,
    tiny_sd3,
    tiny_sdxl,
    to_load,
    trained,
    warnings_of_diffusers,
)

loader_warnings = pytest.fixture(warnings_of_diffusers)


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("family", NETWORKS)
def test_plain_diffusers_predicts_as_the_trained_model(
    family: str, targets: str, tmp_path: Path, loader_warnings: list[str]
) -> None:
    network = NETWORKS[family]()
    settings = LoraSettings(rank=4, alpha=3.0, targets=targets)
    lora = attach(network, settings)
    fill(lora)
    with torch.no_grad():
        expected = predict(network)
    lora.remove()
    file = save_lora(tmp_path / "taste.safetensors", lora.weights(), network)
    load_with_diffusers(network, file)
    with torch.no_grad():
        assert relative(predict(network), expected) < 1e-6
    assert loader_warnings == [], "every key was used"
    loaded = {name.partition(".lora_")[0] for name, _ in network.named_parameters() if ".lora_" in name}
    assert loaded == set(lora.weights())
    assert same(import_lora(file, NETWORKS[family]()), lora.weights())


@pytest.mark.parametrize("pipeline", ["tiny_sd", "tiny_sdxl", "tiny_sd3", "tiny_flux"])
def test_a_whole_pipeline_loads_the_file(pipeline: str, tmp_path: Path, loader_warnings: list[str]) -> None:
    pipe = getattr(tiny_pipelines, pipeline)()
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    weights = trained(network)
    file = save_lora(tmp_path / "taste.safetensors", weights, network)
    pipe.load_lora_weights(**to_load(file), adapter_name="taste")
    for path, w in weights.items():
        assert relative(network.get_submodule(path).get_delta_weight("taste").flatten(1).double(), delta(w)) < 1e-6
    assert active_adapters(network) == {"taste"}
    assert all(message.startswith("No LoRA keys associated to CLIP") for message in loader_warnings), (
        "of the text encoders"
    )


def test_float16_halves_the_file_and_costs_exactness(tmp_path: Path) -> None:
    network = tiny_sd1()
    weights = trained(network, LoraSettings(rank=8, targets="all"))
    files = [save_lora(tmp_path / "float32.safetensors", weights, network), tmp_path / "float16.safetensors"]
    save_file({key: value.half() for key, value in load_file(files[0]).items()}, files[1])
    assert files[1].stat().st_size < 0.7 * files[0].stat().st_size
    errors = []
    for file in files:
        lora = attach(network, LoraSettings(), start=import_lora(file, network))
        exact = attach_and_predict(tiny_sd1(), weights)
        with torch.no_grad():
            errors.append(relative(predict(network), exact))
        lora.remove()
    assert errors[0] < 1e-6 < 1e-5 < errors[1] < 1e-3


def attach_and_predict(network: nn.Module, weights: LoraWeights) -> Tensor:
    lora = attach(network, LoraSettings(), kind="hooks", start=weights)
    with torch.no_grad():
        output = predict(network)
    lora.remove()
    return output


def test_mixed_alphas_become_one_in_the_file(tmp_path: Path) -> None:
    """Diffusers would apply the commonest alpha to all layers."""
    network = tiny_sd1()
    weights = trained(network)
    path = next(iter(weights))
    weights[path] = type(weights[path])(weights[path].down, weights[path].up, 12.0)
    expected = attach_and_predict(network, weights)
    file = save_lora(tmp_path / "a.safetensors", weights, network)
    load_with_diffusers(network, file)
    with torch.no_grad():
        assert relative(predict(network), expected) < 1e-6


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_from_diffusers_own_metadata(rslora: bool, tmp_path: Path) -> None:
    """As `save_lora_weights` leaves it in the file, compared with diffusers' own reading."""
    network = tiny_sd1()
    weights = trained(network)
    odd = next(iter(weights))
    config = {"r": 4, "lora_alpha": 2, "use_rslora": rslora, "alpha_pattern": {odd: 7}, "target_modules": list(weights)}
    tensors = {f"unet.{path}.lora_A.weight": w.down for path, w in weights.items()}
    tensors |= {f"unet.{path}.lora_B.weight": w.up for path, w in weights.items()}
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()})}
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt", **metadata})
    read = import_lora(tmp_path / "a.safetensors", network)
    assert read[odd].alpha == 7 * (2 if rslora else 1)
    expected = attach_and_predict(network, read)
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    if "metadata" not in inspect.signature(Loader.load_lora_into_unet).parameters:
        pytest.skip("this diffusers does not read them: since 0.34")
    state, alphas, stored = Loader.lora_state_dict(**to_load(tmp_path / "a.safetensors"), return_lora_metadata=True)
    Loader.load_lora_into_unet(state, alphas, network, metadata=stored)
    with torch.no_grad():
        assert relative(predict(network), expected) < 1e-6


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_from_a_folder_of_peft(rslora: bool, tmp_path: Path) -> None:
    """As PEFT saves it: alpha lies beside the tensors, in a file of its own. Compared with PEFT's own prediction."""
    from peft import LoraConfig, get_peft_model

    network = tiny_sd1()
    config = LoraConfig(r=4, lora_alpha=16, use_rslora=rslora, target_modules=["to_q", "to_v"], init_lora_weights=False)
    tuned = get_peft_model(tiny_sd1(), config)
    tuned.save_pretrained(str(tmp_path))
    read = import_lora(tmp_path / "adapter_model.safetensors", network)
    assert {(w.rank, w.alpha) for w in read.values()} == {(4, 32.0 if rslora else 16.0)}
    expected = predict(tuned)
    with torch.no_grad():
        assert relative(attach_and_predict(network, read), expected) < 1e-6
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "other.safetensors")
    assert {w.alpha for w in import_lora(tmp_path / "other.safetensors", network).values()} == {4.0}


# -- metadata --------------------------------------------------------------------------------------------------------


def test_metadata_and_hashes(tmp_path: Path) -> None:
    network = tiny_sdxl()
    weights = trained(network, LoraSettings(rank=64, alpha=16.0, targets="all"))
    file = save_lora(
        tmp_path / "warm-2.safetensors",
        weights,
        network,
        base_name="base.safetensors",
        prediction_type="epsilon",
        extra={"picks": 128},
    )
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    digest = hashlib.sha256(content[8 + length :]).hexdigest()
    legacy = metadata.pop("sshs_legacy_hash")
    age = datetime.now(timezone.utc) - datetime.fromisoformat(metadata.pop("modelspec.date"))
    assert age.total_seconds() < 60
    assert metadata == {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "64",
        "ss_network_alpha": "16",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_output_name": "warm-2",
        "ss_sd_model_name": "base.safetensors",
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "warm-2",
        "modelspec.prediction_type": "epsilon",
        "modelspec.hash_sha256": f"0x{digest}",
        "d3po_version": __version__,
        "d3po_picks": "128",
    }
    # the old hash is of a file with only the ss_* keys in its header; its tensors follow in the same order
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    small = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    start = 8 + -(-len(small) // 8) * 8
    assert len(content) - length > 0x110000
    window = content[8 + length :][0x100000 - start : 0x110000 - start]
    assert legacy == hashlib.sha256(window).hexdigest()[:8]


@pytest.mark.parametrize(
    ("make", "version", "v2", "architecture"),
    [
        (tiny_sd1, "sd_v1", "False", "stable-diffusion-v1/lora"),
        (lambda: tiny_sd1(cross_attention_dim=1024), "sd_v2", "True", "stable-diffusion-v2-768-v/lora"),
        (tiny_sd3, "sd3", "False", "stable-diffusion-3/lora"),
        (tiny_flux, "flux1", "False", "flux-1-dev/lora"),
    ],
)
def test_metadata_tells_the_family_and_nothing_private(
    make: Any, version: str, v2: str, architecture: str, tmp_path: Path
) -> None:
    network = make()
    _, metadata = load_lora(save_lora(tmp_path / "a.safetensors", trained(network), network, prediction_type="v"))
    assert metadata["ss_base_model_version"] == version and metadata["ss_v2"] == v2
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["ss_network_alpha"] == ("4" if version in ("sd3", "flux1") else "3")
    assert "ss_sd_model_name" not in metadata and not any(str(tmp_path) in value for value in metadata.values())


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_name_is_never_used_twice(tmp_path: Path) -> None:
    network = tiny_sd1()
    weights = trained(network)
    names = []
    for _ in range(3):
        names.append(save_lora(unused_path(tmp_path / "new", 'my <taste>: "warm"'), weights, network).name)
    assert names == ["my-taste-warm.safetensors", "my-taste-warm-2.safetensors", "my-taste-warm-3.safetensors"]
    before = (tmp_path / "new" / names[0]).read_bytes()
    with pytest.raises(D3POError, match="already"):
        save_lora(tmp_path / "new" / names[0], weights, network)
    assert (tmp_path / "new" / names[0]).read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names), "nothing else is left"


@pytest.mark.parametrize("letter", ["x", "\N{CJK UNIFIED IDEOGRAPH-7F8E}"])
def test_a_long_name_is_cut(tmp_path: Path, letter: str) -> None:
    network = tiny_sd1()
    names = [save_lora(unused_path(tmp_path, letter * 120), trained(network), network).name for _ in range(2)]
    assert all(name.startswith(letter * 40) and len(name.encode()) < 180 for name in names) and names[0] != names[1]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_sd1()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(D3POError, match="No space left"):
        save_lora(tmp_path / "a.safetensors", trained(network), network)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(D3POError, match="could not be written"):
        save_lora(tmp_path / "file" / "a.safetensors", trained(network), network)


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_sd1()

    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    file = save_lora(tmp_path / "a.safetensors", trained(network), network)
    assert same(import_lora(file, network), trained(network))
    with pytest.raises(D3POError, match="already"):
        save_lora(file, trained(network), network)


def test_bad_files_get_one_clear_sentence(tmp_path: Path) -> None:
    network, attention = tiny_sd1(), LoraSettings(targets="attention")
    weights = trained(network, attention)
    file = save_lora(tmp_path / "good.safetensors", weights, network)

    def bad(name: str, tensors: dict[str, Tensor], match: str, metadata: dict[str, str] | None = None) -> None:
        save_file(tensors, tmp_path / name, metadata)
        with pytest.raises(D3POError, match=match) as caught:
            import_lora(tmp_path / name, network)
        assert "Traceback" not in str(caught.value) and str(caught.value).count("\n") == 0

    with pytest.raises(D3POError, match="no LoRA file"):
        import_lora(tmp_path / "none.safetensors", network)
    for length in (0, 4, 100, 5000):
        (tmp_path / "cut").write_bytes(file.read_bytes()[:length])
        with pytest.raises(D3POError, match="damaged"):
            import_lora(tmp_path / "cut", network)
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    with pytest.raises(D3POError, match="damaged or no safetensors"):
        import_lora(tmp_path / "pickle.pt", network)
    bad("checkpoint", {"conv_in.weight": torch.zeros(2)}, "is not a LoRA")
    good = load_file(file)
    name = next(key for key in good if key.endswith("lora_up.weight")).partition(".")[0]
    bad("half", {key: value for key, value in good.items() if key != f"{name}.lora_up.weight"}, "one half")
    bad("uneven", good | {f"{name}.lora_up.weight": torch.zeros(8, 3)}, "do not fit")
    wide = good[f"{name}.lora_down.weight"].shape[1] + 1
    bad("wide", good | {f"{name}.lora_down.weight": torch.zeros(8, wide)}, "another base model")
    bad("loha", good | {"lora_unet_a.hada_w1_a": torch.zeros(2)}, "plain LoRA")
    bad("metadata", good, "metadata is damaged", {"lora_adapter_metadata": "{"})
    text = good | {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8)}
    bad("text", text, "text encoder")
    other = save_lora(tmp_path / "sdxl.safetensors", trained(tiny_sdxl(), attention), tiny_sdxl())
    with pytest.raises(D3POError, match=r"of the LoRA's 136 layers do not exist in this model: lora_unet_.*\.\.\."):
        import_lora(other, network)
    with pytest.raises(D3POError, match="no known model family"):
        save_lora(tmp_path / "x.safetensors", weights, nn.Sequential(nn.Linear(2, 2)))
