"""Readings from MySQL or MariaDB, sent to an upstream broker: the SQL relay service."""
