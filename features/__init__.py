"""Data that all parts share: samples, stores, predictions, and their join to one table.

pandas is imported where it is used: reading the codes of a store does not need it.
"""
