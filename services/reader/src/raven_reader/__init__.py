"""A RAVEn or EMU-2 on a serial line, read and published: the reader service."""
