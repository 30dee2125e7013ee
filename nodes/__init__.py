"""The ComfyUI nodes. `host.py` alone knows how ComfyUI works inside; everything else is thin."""
