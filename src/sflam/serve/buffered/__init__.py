"""Buffered rounds served: devices at their own pace."""
