"""Published rivals, rebuilt."""
