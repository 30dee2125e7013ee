"""ComfyUI's door. Importing it elsewhere (pytest and other tools do, from folders with all kinds of names) is harmless:
nothing of the pack is imported before the host calls `comfy_entrypoint`.
"""

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """The host asks for the nodes."""
    from .nodes.extension import D3POExtension

    return D3POExtension()
