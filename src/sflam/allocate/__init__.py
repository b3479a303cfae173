"""Who gets which bits, bandwidth, power, clock and cut."""
