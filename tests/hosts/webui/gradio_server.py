"""The tab without a web UI, on a gradio server: `python gradio_server.py FOLDER PORT PORT USER PASSWORD`.

Everything of ours is what a host gets: the tab, the gallery's routes with their AuthMiddleware, and a worker. The model
is a toy, and the other tab has only what our page uses in txt2img. The user's password is also the API's. The page at
the second port is behind it, and its tab is as in a web UI that is open to other computers.
"""

from __future__ import annotations

import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from d3po_core.gallery.asgi import GalleryApp
from d3po_core.run import Run
from d3po_core.run.library import RunLibrary
from d3po_panels.worker import Worker
from d3po_studio.host import StudioHost
from d3po_webui.auth import MOUNT, AuthMiddleware
from d3po_webui.cards import Cards
from d3po_webui.tab import build
from tests.toy import ToyModel

ROOT = Path(__file__).parents[3]
KEY = "0123456789abcdef"
CLASSES = ["gradio-accordion"]
"""As web UIs mark them."""
SIDE = 128
"""Of a picture, in pixels."""


class Squares(ToyModel):
    """The toy, its nine squares large enough to be looked at."""

    name = "squares"

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(super().decode(latents), (SIDE, SIDE))


class OneModel:
    """Where models come from: there is one."""

    device = "cpu"

    def __init__(self) -> None:
        self.model: Any = Squares()

    def get(self, source: str = "") -> Any:
        return self.model

    def of(self, run: Run) -> Any:
        return self.model


class TabHost(StudioHost):
    """A host that gives LoRAs cards, as a web UI does."""

    attachment = "hooks"

    def __init__(self, cards: Cards, open_to_others: bool = False) -> None:
        super().__init__(OneModel())
        self.cards, self.open_to_others = cards, open_to_others

    def lora_saved(self, run: Run, path: Path) -> None:
        self.cards.publish(run, path)

    def previews_drawn(self, run: Run, round: int) -> None:
        self.cards.picture(run, round)


def know_js() -> None:
    """Let gradio 4 take `_js`, as gradio 3 calls it: Forge does so too, for all extensions."""

    def knowing(event: Any) -> Any:
        @functools.wraps(event)
        def called(*values: Any, _js: str | None = None, **named: Any) -> Any:
            return event(*values, **(named if _js is None else {**named, "js": _js}))

        return called

    for name in (*gr.components.__all__, *gr.layouts.__all__):
        for event in map(str, getattr(getattr(gr, name, None), "EVENTS", [])):
            setattr(getattr(gr, name), event, knowing(getattr(getattr(gr, name), event)))
    plain = gr.events.Dependency.__init__

    def begun(self: Any, *values: Any, **named: Any) -> None:
        plain(self, *values, **named)
        self.then, self.success = knowing(self.then), knowing(self.success)

    gr.events.Dependency.__init__ = begun


def txt2img() -> None:
    """What our page reads there, and where it puts its button."""
    gr.Textbox(label="Prompt", elem_id="txt2img_prompt", lines=3)
    gr.Textbox(label="Negative prompt", elem_id="txt2img_neg_prompt", lines=3)
    for name, value in (("steps", 20), ("width", 512), ("height", 512), ("cfg_scale", 7)):
        gr.Slider(1, 2048, value, step=1, label=name, elem_id=f"txt2img_{name}", interactive=True)
    with gr.Group(elem_id="txt2img_script_container"), gr.Accordion("Wildcards", elem_classes=CLASSES):
        gr.Checkbox(True, label="Enable")
    with gr.Row(elem_id="image_buttons_txt2img"):
        gr.Button("Send to img2img")


def main() -> None:
    folder, ports, login = Path(sys.argv[1]), list(map(int, sys.argv[2:4])), tuple(sys.argv[4:])
    if gr.__version__.startswith("4."):
        know_js()
    library, cards = RunLibrary(folder / "tastes"), Cards(folder / "loras")
    worker = Worker(TabHost(cards))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # gradio 3 only warns of what it does not know
        tab = build(library, worker, cards, key=KEY)
        guarded = build(library, Worker(TabHost(cards, open_to_others=True)), cards)
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs(elem_id="tabs"):
        with gr.Tab("txt2img", elem_id="tab_txt2img"):
            txt2img()
            with gr.Row(elem_id="image_buttons_txt2img"):
                gr.Button("Save")
        with gr.Tab("D3PO", elem_id="tab_d3po"):
            tab.render()
    gallery: Any = GalleryApp(library, worker, ROOT / "web")
    for blocks, port, auth in ((page, ports[0], None), (guarded, ports[1], login)):
        app, *_ = blocks.queue().launch(server_name="127.0.0.1", server_port=port, auth=auth, prevent_thread_lock=True)
        app.mount(MOUNT, AuthMiddleware(gallery, app, dict([login]), KEY))
    worker.start()
    print(f"gradio {gr.__version__} is ready", flush=True)
    sys.stdin.read()  # until whoever started this has enough


if __name__ == "__main__":
    main()
