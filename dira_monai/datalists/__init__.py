"""Datalists."""
