"""The version of plugwasm."""

__version__ = "0.1.0"
