"""How fast, how much memory, and how far from what the machine could do."""
