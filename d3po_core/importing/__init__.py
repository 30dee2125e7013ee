"""Importing existing images into a run, with their prompts and people's picks.

| file | what is in it |
|---|---|
| `folders` | a folder with `winners` and `losers` in it |
| `outputs` | a folder of pictures that nobody has judged, for a tournament |
| `jsonl` | JSON lines: pairs, rankings, scores, Pick-a-Pic's rows, and the data sets that this project exports |
| `judged` | what each kind of source is read into, `JudgedImages`, and groups of which a winner is also a loser |
| `levels` | thumbs, stars and levels of any scale as picks |
| `captions` | the prompt of an image file, from a caption beside it or else from the file |
| `metadata` | what A1111's kind, SwarmUI, Fooocus, InvokeAI, NovelAI, Draw Things and Easy Diffusion write into files |
| `graphs`, `graph_texts` | the prompt of a ComfyUI graph; what its nodes make of texts |
| `pixels` | an image as a viewer shows it, and PNG's texts |
| `into_run` | `read_source` for sources of any kind; `import_pictures`: groups without a trajectory, for some methods |

A fault in one image leaves out only the groups that need it, and is reported; it is an error if nothing is left.
"""

from __future__ import annotations

from .into_run import Imported, import_pictures, read_source
from .judged import JudgedImages

__all__ = ["Imported", "JudgedImages", "import_pictures", "read_source"]
