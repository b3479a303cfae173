"""A device in NumPy and the standard library alone.

OpenBLAS chooses its kernels when NumPy is first imported, so the choice is made here, before.
"""

from sflam.device.processor import choose_kernels

choose_kernels()
