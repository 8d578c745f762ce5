"""Visualize."""
