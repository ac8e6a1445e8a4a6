"""A Rainforest RAVEn or EMU-2 on a pseudo-terminal or TCP port, with faults to order."""
