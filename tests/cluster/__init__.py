"""The system on clusters of what it uses; run by ``make cluster-test``."""
