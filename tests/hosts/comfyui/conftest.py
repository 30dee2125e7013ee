"""One real ComfyUI for all tests here, with the pack linked into it and everything else in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .host import ROOT, Host
from .page import Page

HOST = os.environ.get("COMFYUI_DIR")
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if HOST is None:
        skip = pytest.mark.skip(reason="no ComfyUI: name one with COMFYUI_DIR (and its Python with COMFYUI_PYTHON)")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder of ComfyUI's with the pack and tiny models, made with the host's own network classes."""
    folder = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "models/checkpoints", "models/loras", "input", "output", "temp", "user"):
        (folder / name).mkdir(parents=True)
    (folder / "custom_nodes" / "comfyui-d3po").symlink_to(ROOT)
    command = [PYTHON, str(Path(__file__).parent / "tiny_checkpoint.py"), str(folder / "models")]
    subprocess.run(command, check=True, env={**os.environ, "COMFYUI_DIR": str(HOST)})
    return folder


@pytest.fixture(scope="session")
def host(base: Path) -> Iterator[Host]:
    """The running host."""
    with Host(Path(str(HOST)), PYTHON, base) as running:
        print(f"\nran against ComfyUI {running.version} in {HOST}")
        yield running


@pytest.fixture(scope="module")
def own(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with no tastes but those drawn here."""
    folder = tmp_path_factory.mktemp("browser")
    for name in ("custom_nodes", "models/loras", "input", "output", "temp", "user"):
        (folder / name).mkdir(parents=True)
    (folder / "custom_nodes" / "comfyui-d3po").symlink_to(ROOT)
    (folder / "models" / "checkpoints").symlink_to(base / "models" / "checkpoints")
    with Host(Path(str(HOST)), PYTHON, folder) as running:
        yield running


@pytest.fixture
def opened(browser: Any, own: Host) -> Iterator[Callable[..., Page]]:
    """Opens ComfyUI's page: `opened(width, height, **settings)`; nothing of ours may complain in it."""
    pages: list[Page] = []

    def open_it(width: int = 1500, height: int = 1000, settings: dict[str, Any] | None = None) -> Page:
        usual = {"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "en", "Comfy.ColorPalette": "dark"}
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        pages.append(Page(context, own, {**usual, **(settings or {})}))
        return pages[-1]

    yield open_it
    for page in pages:
        page.context.close()
        assert page.errors == []
