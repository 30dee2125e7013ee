"""Register the tab with AUTOMATIC1111 and the Forge family, which load every file of this folder when they start.

The extension's folder is on the path only while this file is loaded, so everything is imported now, under names that no
other extension has.
"""

from pathlib import Path

from d3po_webui import register

register.register(Path(__file__).parents[1])
