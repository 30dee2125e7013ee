"""Programs that made what the project ships; none is needed to use it."""
