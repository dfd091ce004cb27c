"""The edge: HTTP and WebSocket for clients, health for operators, the page for people."""
