"""A Rainforest RAVEn or EMU-2 on a pseudo-terminal or TCP port, with faults to order."""

__version__ = "1.1.0"
