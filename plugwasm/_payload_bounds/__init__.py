"""Bounds on JSON and MessagePack from outside, checked before a parser sees them.

nesting      how deep they are nested
value_count  how many values they have
"""
