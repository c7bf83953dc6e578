"""Published datasets of deforming surfaces, read as their authors hand them out; see docs/datasets.md."""
