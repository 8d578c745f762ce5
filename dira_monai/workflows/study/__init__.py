"""A study: which pre-training pays on one's own data, over tasks, numbers of labels, subsets and seeds."""
