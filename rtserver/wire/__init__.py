"""The client protocol `rtserver.v1`: messages, their bytes, checksums and codes. Pure."""
