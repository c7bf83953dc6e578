"""Characters, motion, rendering, sensor noise, signed distances and sequence files."""
