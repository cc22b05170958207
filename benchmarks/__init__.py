"""The library beside its peers: what takes hours, and no part of ``make test``."""
