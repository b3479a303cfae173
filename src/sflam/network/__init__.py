"""Devices and servers: positions, gains and hardware."""
