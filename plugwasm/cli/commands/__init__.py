"""The commands of the command line, one module each: their options, and what they do.

What takes time to import is imported when a command runs.
"""
