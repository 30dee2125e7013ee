"""Files that a run gives away and takes back.

| file | form |
| --- | --- |
| lines.py | picks and flags as JSON lines, with everything that was recorded; can be imported again |
| authors_json.py | picks as the feedback JSON of the D3PO authors' repository; can be imported again |
| dataset.py | images and picks as a folder for Hugging Face's `load_dataset` |
| share.py | one zip with the LoRA, a before/after image and a card |
"""
