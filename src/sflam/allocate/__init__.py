"""Allocation of bits, bandwidth, power, clock and cut to devices."""
