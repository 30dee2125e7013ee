"""ComfyUI's entry point. Importing it elsewhere (pytest and other tools do, from folders with all kinds of names) is
harmless: nothing of the pack is imported before the host calls `comfy_entrypoint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import D3POExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> D3POExtension:
    """Return the pack's nodes, when the host asks for them."""
    from .nodes.extension import D3POExtension

    return D3POExtension()
