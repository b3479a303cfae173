"""A round over a real network: server, torch device, and what they agree on."""
