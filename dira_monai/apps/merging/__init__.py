"""Several masks of an image, a file each, merged into one label map."""
