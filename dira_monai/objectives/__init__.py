"""Discriminative objectives: heads, state and loss of learning by telling images apart."""
