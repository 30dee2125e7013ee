"""D3PO inside AUTOMATIC1111 and the Forge family: a tab around the core, the gallery and the Studio's panels."""
