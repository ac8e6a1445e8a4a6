"""Readings from a broker, recorded in MongoDB: the recorder service."""
