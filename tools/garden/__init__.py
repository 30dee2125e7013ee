"""What made the embedded model: its pictures, its training, its measures. See d3po_core/embedded/README.md."""
