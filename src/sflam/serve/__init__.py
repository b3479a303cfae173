"""The server over HTTPS, and the torch device."""
