"""Teach an image model a taste from picks: the host-free core."""

__version__ = "0.1.0"
