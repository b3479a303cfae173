"""Average-replace-one stability: measured, and its bounds."""
