"""The hub: channels with their streams, and the sessions that listen to them."""
