"""What people run in a terminal: `tail` shows a channel live, `verify` compares a server with the chain."""
