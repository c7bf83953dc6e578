"""The neural-field half: from a window of TSDFs to completed surfaces."""
