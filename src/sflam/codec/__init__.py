"""Activations and gradients to bytes and back: quantizers, packing, rotation, messages, bodies."""
