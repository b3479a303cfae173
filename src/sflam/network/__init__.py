"""Where devices and servers are, and how well they hear each other."""
