"""Published methods, reimplemented."""
