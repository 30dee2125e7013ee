"""A1111 and Forge run this file when they start; it installs nothing, because the core needs only what they bring."""
