"""Training steps of other programs beside this project's, on one network; see `__main__.py`."""
