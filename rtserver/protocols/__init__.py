"""One folder a protocol: pure adapters that turn logs and reads into positions. No I/O in here."""
