"""The tables of python-raven, and what their writer and their relay share.

``schema`` makes the tables, ``rows`` and ``readings`` turn messages into rows and rows into
messages, and ``database`` is the connection: with ``bulk`` the only module that knows PyMySQL.
"""
