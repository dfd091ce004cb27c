"""Worth: what exact amounts are worth in US dollars."""
