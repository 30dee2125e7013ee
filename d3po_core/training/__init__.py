"""Teaching: from a run's picks to a LoRA. `trainer.Trainer` is the door."""
