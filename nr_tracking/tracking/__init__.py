"""The sliding window and the tracks that persist through it."""
