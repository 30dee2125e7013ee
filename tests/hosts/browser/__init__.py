"""The gallery's page, driven in a browser."""
