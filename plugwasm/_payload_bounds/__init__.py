"""Bounds on JSON and MessagePack from outside, checked before a parser sees them.

nesting      how deep arrays and maps are nested
value_count  how many values there are
"""
