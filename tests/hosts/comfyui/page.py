"""Looking at and acting on ComfyUI's own page, in words of picking and teaching."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from .graphs import Graph
from .host import Host

AFTER_THE_GUARD_MS = 190
PACK = "/extensions/comfyui-d3po/"

WATCH = """
    for (const level of ["error", "warn"]) {
        const plain = console[level];
        console[level] = (...values) => plain(...values, new Error("said by").stack);
    }
"""
"""Every complaint tells where it comes from."""

ORDER = """() => {
    const { api } = window.comfyAPI.api;
    window.order = [];
    api.addEventListener("d3po.group", () => window.order.push("drawn"));
    const look = () => {
        const frame = window.shown("node")?.shadowRoot?.querySelector(".frame img");
        if (frame?.complete && frame.checkVisibility() && !window.order.includes("seen")) window.order.push("seen");
        requestAnimationFrame(look);
    };
    look();
}"""
"""Writes down when groups were drawn and when the first was on screen."""

HELPERS = """
    window.kind = (name) => window.app.rootGraph.nodes.filter((node) => node.type === `D3PO_${name}`);
    window.hosts = () => window.app.rootGraph.nodes.filter((node) => node.isSubgraphNode?.());
    window.gallery = (node) => node?.widgets.find((widget) => widget.name === "gallery")?.element;
    window.shown = (where) => where === "sidebar"
        ? document.querySelector(".side-bar-panel d3po-gallery, .sidebar-content-container d3po-gallery")
        : window.gallery(where === "subgraph" ? window.hosts()[0] : window.kind("PreferenceCollector")[0]);
"""


class Page:
    """ComfyUI in a browser.

    Args:
        context: of Playwright.
        host: the server.
        settings: of the page's own, by their ids.
        others: packs of other people's are there too; what they do wrong is no error of ours.
    """

    def __init__(self, context: Any, host: Host, settings: dict[str, Any] | None = None, others: bool = False) -> None:
        self.context, self.host, self.others = context, host, others
        self.errors: list[str] = []
        self.modules: list[str] = []
        """Our modules that the page has asked for."""
        self.complaints: list[str] = []
        """Errors and warnings of anybody's, and what the server refused, each without where it was said."""
        for name, value in {"Comfy.TutorialCompleted": True, **(settings or {})}.items():
            host.post(f"/settings/{quote(name)}", value)
        context.set_default_timeout(90_000 if others else 20_000)
        context.add_init_script(WATCH + HELPERS)
        if host.user:
            context.add_init_script(
                f"localStorage['Comfy.userId'] = localStorage['Comfy.userName'] = {json.dumps(host.user)};"
            )
        self.page = context.new_page()
        self.page.on("console", self._note_console)
        self.page.on("pageerror", self._failed)
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.open()

    def _note_console(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        self.complaints.append(message.text.partition("Error: said by")[0])
        if PACK in message.text:
            self.errors.append(message.text)

    def _failed(self, error: Any) -> None:
        self.complaints.append(str(error))
        if not self.others or PACK in (error.stack or ""):
            self.errors.append(str(error))

    def _asked(self, request: Any) -> None:
        if PACK in request.url and request.url.endswith((".js", ".mjs")):
            self.modules.append(request.url.rpartition("/")[2])

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")
        if response.status >= 400 and ("/d3po/" in response.url or PACK in response.url or "/prompt" in response.url):
            self.errors.append(f"{response.status} {response.url}")

    def open(self) -> None:
        """Open it, or reload it."""
        self.page.goto(self.host.address)
        self.until("window.app?.canvas?.graph && window.app.extensionManager?.workflow?.activeWorkflow")

    def until(self, condition: str, argument: Any = None) -> Any:
        """Wait for something to be true in the page."""
        return self.page.wait_for_function(condition, arg=argument)

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def load(self, graph: Graph) -> None:
        """Open a graph, and look at the Preference Collector if it has one."""
        self.run("async (graph) => { await window.app.loadApiJson(graph, 'test'); }", graph)
        self.look_at("PreferenceCollector")

    def look_at(self, kind: str, scale: float = 1.0) -> None:
        self.run(
            """([name, scale]) => {
                const { canvas } = window.app;
                const [node] = window.kind(name);
                if (!node) return;
                canvas.ds.scale = scale;
                canvas.ds.offset = [-node.pos[0] + 500 / scale, -node.pos[1] + 90 / scale];
                canvas.setDirty(true, true);
            }""",
            [kind, scale],
        )

    # The queue

    def queued_by(self, act: Callable[[], object]) -> tuple[str, list[str] | None]:
        """What an action puts into the queue: its id, and the nodes that it is about if not about all."""
        with self.page.expect_response(lambda got: got.url.endswith("/prompt") and got.request.method == "POST") as got:
            act()
        asked = got.value.request.post_data_json
        return got.value.json()["prompt_id"], asked.get("partial_execution_targets")

    def queue(self) -> str:
        """Press Run."""
        return self.queued_by(lambda: self.page.get_by_test_id("queue-button").click())[0]

    def red(self) -> list[str]:
        """Nodes that the page shows as failed."""
        return list(self.run("() => window.app.rootGraph.nodes.filter((node) => node.has_errors).map((n) => n.type)"))

    # The gallery

    def gallery(self, where: str) -> Any:
        """The gallery in the node, in the "subgraph" around it, or in the sidebar."""
        return self.run_handle("(where) => window.shown(where)", where)

    def run_handle(self, script: str, argument: Any) -> Any:
        return self.page.evaluate_handle(script, argument).as_element()

    def toggle_sidebar(self) -> None:
        self.page.locator("button:has(.pi-heart)").first.click()

    def open_sidebar(self) -> None:
        self.toggle_sidebar()
        self.wait_for_group("sidebar")

    def wait_for_group(self, where: str) -> None:
        self.until("(where) => window.shown(where)?.shadowRoot?.querySelector('.frame img')?.checkVisibility()", where)
        self.page.wait_for_timeout(AFTER_THE_GUARD_MS)  # input so soon is not taken for meant

    def picks(self, where: str) -> int:
        return int(self.run("(where) => window.shown(where).session.progress().done", where))

    def pick(self, where: str, by: str) -> None:
        """Pick the first of the pictures in front, by "mouse" or by "key"."""
        self.wait_for_group(where)
        before = self.picks(where)
        if by == "mouse":
            self.gallery(where).query_selector(".frame").click()
        else:
            self.run("(where) => window.shown(where).focus()", where)
            self.page.keyboard.press("1")
        self.until("([where, n]) => window.shown(where).session.progress().done > n", [where, before])

    def teach(self, where: str) -> tuple[str, list[str] | None]:
        """Press Teach; what that puts into the queue."""
        self.run("(where) => window.shown(where).shadowRoot.querySelector('[data-view=teach]').click()", where)
        self.until(
            "(where) => !window.shown(where).shadowRoot.querySelector('[data-action=teach]').disabled",
            where,
        )
        return self.queued_by(lambda: self.gallery(where).query_selector("[data-action=teach]").click())

    def toast(self, text: str) -> str:
        """Wait for a toast with this text, and take it away; all it says."""
        toast = self.page.locator(".p-toast-message", has_text=text).first
        toast.wait_for()
        shown = str(toast.inner_text())
        toast.locator(".p-toast-close-button").click()
        return shown
