"""ComfyUI's door. There are no nodes yet, so ComfyUI will say that it found none here; nothing else happens.

Whatever comes here stays light and free of relative imports at module level: pytest and other tools import this file
from folders with all kinds of names.
"""
