"""The engine: one chain's books, kept exact block by block."""
