"""A list of three pictures, for tests that take a datalist apart."""

from scan_files import noise, write_image


def write_listed(folder):
    """Three pictures and the list of them; the last is larger than both ends that are read together."""
    files = [write_image(folder / f"p{number}.png", noise(6, 8, seed=number)) for number in range(2)]
    files.append(write_image(folder / "large.png", noise(400, 500, seed=2)))
    entries = [{"image": str(file), "label": number} for number, file in enumerate(files)]
    return {"dataset_dir": str(folder), "training": entries[:2], "validation": entries[2:]}
