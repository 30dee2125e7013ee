"""What a LoRA changes: images before and after, on prompts and seeds that training never saw.

| file | what is in it |
|---|---|
| `compare` | win rate and gain, from scores before and after |
| `effect` | what a round did to pictures: is the prompt kept, at which strength, and would the person prefer them |
| `evaluate` | draws and scores both sides, compares them and saves the result |
"""
