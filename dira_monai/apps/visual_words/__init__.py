"""Visual words."""
