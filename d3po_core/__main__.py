"""`python -m d3po_core` is the `d3po` command."""

import sys

from .cli import main

sys.exit(main())
