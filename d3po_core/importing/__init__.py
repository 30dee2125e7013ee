"""Importing existing images into a run, with their prompts and people's picks.

| file | what is in it |
|---|---|
| `folders` | a folder with `winners` and `losers` in it |
| `jsonl` | JSON lines: pairs, rankings, scores, Pick-a-Pic's rows, and the data sets that this project exports |
| `judged` | what each kind of source is read into, `JudgedImages`, and groups of which a winner is also a loser |
| `captions` | the prompt of an image file, from a .txt beside it or from what a web UI or ComfyUI wrote; its pixels |
| `into_run` | `read_source` for sources of any kind; `import_pictures`: groups without a trajectory, for some methods |

A fault in one image leaves out only the groups that need it, and is reported; it is an error if nothing is left.
"""

from __future__ import annotations

from .into_run import Imported, import_pictures, read_source
from .judged import JudgedImages

__all__ = ["Imported", "JudgedImages", "import_pictures", "read_source"]
