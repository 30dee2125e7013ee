"""Run the `d3po` command by `python -m d3po_core`."""

import sys

from .cli import main

sys.exit(main())
