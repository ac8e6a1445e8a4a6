"""Power cuts of a whole home: minutes, and as root, so apart from the other tests."""
