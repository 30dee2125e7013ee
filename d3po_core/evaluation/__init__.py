"""What a LoRA changes: images before and after, on prompts and seeds that training never saw.

| file | what is in it |
|---|---|
| `compare` | win rate and gain, from scores before and after |
| `evaluate` | draws and scores both sides, compares them and saves the result |
| `images` | images of fixed prompts and seeds, and a grid of both sides |
"""
