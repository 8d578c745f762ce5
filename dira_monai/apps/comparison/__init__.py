"""Comparison of runs on the same test patients."""
