"""``fastcast bench``: many WebSocket clients against a server, and what became of every message."""
