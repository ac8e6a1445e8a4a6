"""The contract of python-raven's bus, and the two halves of every service on it.

``messages`` and ``notifications`` are the contract, ``topics`` its addresses.
``publisher`` carries an Outbox to a broker, ``consumer`` a broker to a Sink.
Everything else serves those two: ``mqtt`` (the driver), ``settings``, ``health``, ``metrics``,
``logs``, ``service`` (what every ``main`` has in common), ``store`` (what every store's has) and
``contract`` (the published schemas).
"""

__version__ = "1.1.0"
