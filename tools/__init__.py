"""What made things that the project ships, and is not needed to use it."""
