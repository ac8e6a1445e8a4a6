"""A fleet: as many homes as one machine plays, the server's part of the system, and outages."""
