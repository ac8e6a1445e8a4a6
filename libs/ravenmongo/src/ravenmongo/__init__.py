"""The documents of python-raven, and what its services share that use MongoDB.

``documents`` turns messages into documents and documents into messages, and ``database`` is the
driver's client and what each of its errors means.
"""
