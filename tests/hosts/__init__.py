"""Tests against real hosts; each says in its output what it ran against."""
