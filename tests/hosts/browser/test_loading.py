"""What a host's page loads before any gallery is seen. ComfyUI imports every *.js of a pack when its page opens."""

from __future__ import annotations

import re

from tests.hosts.browser.gallery_server import WEB

STATIC = re.compile(r'^(?:import|export) (?:[^"]*? from )?"\./([\w.]+)";', re.MULTILINE)


def loaded_with(name: str) -> set[str]:
    """A module, and all that it imports at once."""
    found, ahead = set(), [name]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += STATIC.findall((WEB / module).read_text("utf-8"))
    return found


def test_one_small_entry_is_all_that_comfyui_imports_by_itself() -> None:
    assert [path.relative_to(WEB).as_posix() for path in WEB.rglob("*.js")] == ["comfyui.js"]
    modules = {"comfyui.js", "comfyui_node.mjs", "comfyui_words.mjs", "text.mjs", "wall.mjs"}
    assert loaded_with("comfyui.js") == modules


def test_every_module_is_loaded_by_a_host() -> None:
    reached = loaded_with("comfyui.js") | loaded_with("comfyui_gallery.mjs") | loaded_with("gallery.mjs")
    assert reached == {path.name for path in [*WEB.glob("*.js"), *WEB.glob("*.mjs")]}
