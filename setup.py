"""The wheel carries the bundles as dira_monai._bundles; everything else is in setup.cfg."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dira_monai*"]), "dira_monai._bundles"],
    package_dir={"dira_monai._bundles": "bundles"},
)
