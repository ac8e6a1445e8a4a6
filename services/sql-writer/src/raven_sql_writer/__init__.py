"""Readings from a broker, stored in MySQL or MariaDB: the SQL writer service."""
