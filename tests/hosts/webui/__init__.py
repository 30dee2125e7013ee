"""AUTOMATIC1111 and the Forge family: what needs no host, and (later) tests against real ones, named by WEBUI_DIR."""
