"""`python -m d3po_studio`, or `d3po-studio`: open the Studio."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from d3po_core.errors import D3POError


def main() -> int:
    """Open the Studio, serve it until Ctrl+C, and return the exit status."""
    parser = argparse.ArgumentParser(prog="d3po-studio", description="Teach an image model your taste, in one page.")
    parser.add_argument("--folder", type=Path, default=Path("d3po-runs"), help="of the tastes [d3po-runs]")
    parser.add_argument("--port", type=int, help="to listen on, at 127.0.0.1 [the first free one from 7870]")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    options = parser.parse_args()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # this computer only
    from .app import serve

    try:
        with suppress(KeyboardInterrupt):
            serve(options.folder.absolute(), options.port, not options.no_browser)
    except D3POError as error:
        print(f"d3po-studio: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
