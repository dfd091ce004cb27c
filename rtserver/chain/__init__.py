"""Following a chain: endpoints, heads, links between blocks, logs and batched reads."""
