"""Against a real ComfyUI, named by COMFYUI_DIR; its Python by COMFYUI_PYTHON (this one, if it is not set)."""
