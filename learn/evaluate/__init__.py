"""Metrics, intervals, tests, calibration, complementarity, and the table of all results."""
