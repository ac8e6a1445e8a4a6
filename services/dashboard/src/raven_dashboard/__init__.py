"""Readings and their history in a browser: the dashboard service."""
