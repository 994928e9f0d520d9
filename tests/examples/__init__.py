"""The larger examples."""
