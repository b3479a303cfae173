"""A device in a browser: the page's files, and what serves them."""
