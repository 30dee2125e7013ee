"""A1111 and Forge run this file when they start. It installs nothing, because the core needs only what they bring;
where their PyTorch is too old for it, it says so."""

import sys
from importlib.metadata import version
from pathlib import Path

OLDEST_TORCH = (2, 1)


def in_a_webui() -> bool:
    """Return whether a web UI runs this: it puts itself on the path."""
    return any(Path(folder, "modules", "launch_utils.py").is_file() for folder in sys.path)


def warning(torch: str) -> str:
    """Return what to say to somebody with this version of PyTorch; "" if it is new enough."""
    if tuple(map(int, torch.split(".")[:2])) >= OLDEST_TORCH:
        return ""
    return (
        f"D3PO needs PyTorch {'.'.join(map(str, OLDEST_TORCH))} or later, and this web UI has {torch}: "
        "start it once with --reinstall-torch to get the one that it was made for."
    )


if __name__ == "__main__" and in_a_webui() and (sentence := warning(version("torch"))):
    print(sentence)
