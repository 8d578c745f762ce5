"""Pre-training, fine-tuning, evaluation and features: a function each, which runs a bundle."""
