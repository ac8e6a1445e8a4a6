"""Readings from a broker, recorded in MongoDB: the recorder service."""

import ravenmongo as ravenmongo  # before pymongo: it says what that need not import
