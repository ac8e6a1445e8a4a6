"""What starts, breaks and describes the whole system; for tests and for people, never installed with a service."""
