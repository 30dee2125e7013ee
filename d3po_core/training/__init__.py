"""A round of training: a run's picks, or a reward, become a LoRA.

| file | what is in it |
|---|---|
| `round_trainer` | what every round does: open, save its state, measure drift, and write the LoRA (`save_round`) |
| `trainer` | `Trainer`: a round that learns from picks |
| `preferences` | what a round learns from, read from the run's picks or a reward's scores |
| `preference_optimizer` | `PreferenceOptimizer`: the updates of that round |
| `methods` | `METHODS`: D3PO and five others, as rows and a loss |
| `rows` | recorded groups as batches of (image, step), and the reference policy's predictions on them |
| `passes` | batch sizes that fit into memory, the gradient in parts, AdamW |
| `reward_trainer` | `RewardTrainer`: a round that learns from a differentiable reward |
| `reward_gradient` | the gradient of a reward on images that are drawn for it |
| `reports` | what a trainer reports, and what came out |
"""
