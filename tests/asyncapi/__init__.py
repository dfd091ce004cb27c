"""The protocol's AsyncAPI document, against the reference parser, the message types and real frames."""
