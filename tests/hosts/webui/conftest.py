"""The web UIs that the host tests run against.

WEBUI_DIR names their sources (with the repositories that they fetch beside them), separated as in PATH; WEBUI_PYTHON
the Pythons of their environments in the same order. Every host test is run for each of them. With D3PO_LARGE_MODELS=1
those of flow models are run for large ones, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import flow_checkpoint
from .checkpoint import write
from .host import WebUI

HOSTS = [Path(each) for each in os.environ.get("WEBUI_DIR", "").split(os.pathsep) if each]
PYTHONS = os.environ.get("WEBUI_PYTHON", sys.executable).split(os.pathsep)
NONE = pytest.param(
    None, marks=pytest.mark.skip(reason="no web UI: name one with WEBUI_DIR (its Python with WEBUI_PYTHON)")
)


@pytest.fixture(scope="session")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the shape of Stable Diffusion 1.5."""
    return write(tmp_path_factory.mktemp("models"), "sd15")


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the shape of SDXL."""
    return write(tmp_path_factory.mktemp("models"), "sdxl")


@pytest.fixture(scope="module")
def checkpoint(sd15: Path) -> Path:
    """What the hosts load; a file of tests may have another."""
    return sd15


@pytest.fixture(scope="session")
def flow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where flow models are, each from its first use on."""
    return tmp_path_factory.mktemp("flow")


def _flow_engines() -> list[Any]:
    """The small ones; the large ones, too, if D3PO_LARGE_MODELS is set."""
    large = {} if os.environ.get("D3PO_LARGE_MODELS") else flow_checkpoint.LARGE
    reasons = {engine: f"large, set D3PO_LARGE_MODELS=1 to run it ({why})" for engine, why in large.items()}
    return [
        pytest.param(engine, marks=pytest.mark.skip(reason=reasons[engine]) if engine in reasons else ())
        for engine in flow_checkpoint.ENGINES
    ]


@pytest.fixture(scope="module", params=_flow_engines())
def flow_engine(request: pytest.FixtureRequest) -> str:
    """Each of the flow models; a file of tests may take some of them."""
    return str(request.param)


@pytest.fixture(scope="module")
def flow_model(flow_engine: str, flow_folder: Path) -> Path:
    """A flow model, for files of tests whose `checkpoint` it is; Forge Neo alone loads it."""
    path = flow_folder / f"{flow_engine}.safetensors"
    return path if path.is_file() else flow_checkpoint.write(flow_folder, flow_engine)


def _name(number: int | None) -> str | None:
    return None if number is None else HOSTS[number].name


@pytest.fixture(scope="module", params=range(len(HOSTS)) if HOSTS else [NONE], ids=_name)
def webui(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Iterator[WebUI]:
    """A running host with an empty data folder, one for all tests of a file."""
    number = request.param
    host = WebUI(HOSTS[number], PYTHONS[number], tmp_path_factory.mktemp("webui") / "data", checkpoint)
    if checkpoint.stem in flow_checkpoint.ENGINES and not host.is_neo:
        pytest.skip(f"{HOSTS[number].name} loads no flow models of this layout: Forge Neo does")
    with host:
        print(f"\nran against {host.about()}")
        yield host
