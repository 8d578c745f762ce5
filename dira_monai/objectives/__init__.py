"""Discriminative objectives: heads, state and loss of self-supervised methods."""
