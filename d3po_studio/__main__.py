"""`python -m d3po_studio`, or `d3po-studio`: open the Studio."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from d3po_core.cli import check_text, of_file
from d3po_core.cli.flags import Parser, number, run_folder
from d3po_core.errors import D3POError


def make_parser() -> Parser:
    """Make the parser of the options; it raises D3POError."""
    parser = Parser(prog="d3po-studio", description="Teach an image model your taste, in one page.", allow_abbrev=False)
    parser.add_argument("--folder", type=run_folder, default="d3po-runs", help="of the tastes [d3po-runs]")
    port = "to listen on, at 127.0.0.1 [the first free one from 7870]"
    parser.add_argument("--port", type=number(int, "--port"), metavar="N", help=port)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    return parser


def check_folder(folder: Path) -> None:
    """Check that tastes can be kept in a folder, or are there already, before anything slow.

    Raises:
        D3POError: they can't and aren't, or the folder is itself a taste.
    """
    from d3po_core.run.database import DATABASE
    from d3po_core.run.files import check_writable

    if (folder / DATABASE).is_file():
        raise D3POError(f"{folder} is a taste itself.", f"Name the folder that it is in: {folder.parent}.")
    if not any(folder.glob(f"*/{DATABASE}")):  # those on read-only media can be looked at
        check_writable(folder)


def main(arguments: list[str] | None = None) -> int:
    """Open the Studio, serve it until Ctrl+C, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # this computer only
    try:
        check_text(arguments)
        options = make_parser().parse_args(arguments)
        folder = Path(options.folder).absolute()
        check_folder(folder)
        from .app import serve

        with suppress(KeyboardInterrupt):
            serve(folder, options.port, not options.no_browser)
    except D3POError as error:
        return _fail(error)
    except OSError as error:
        return _fail(of_file(error))
    return 0


def _fail(error: D3POError) -> int:
    print(f"d3po-studio: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
