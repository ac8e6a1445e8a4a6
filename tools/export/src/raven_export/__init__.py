"""Every reading out of a store as a table in a file, and into the stores again over the bus."""
