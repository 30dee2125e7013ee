"""Files that a run gives away and takes back.

| file | form |
| --- | --- |
| lines.py | picks, flags and masks, as JSON lines; with images, for Hugging Face; can be imported |
| authors_json.py | picks as the feedback JSON of the D3PO authors' repository; can be imported again |
| label_studio.py | pairs as Label Studio's tasks and annotations; its users' choices can be imported |
| share.py | one zip with the LoRA, a before/after image and a card |
"""
