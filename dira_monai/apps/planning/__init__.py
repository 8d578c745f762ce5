"""A plan from the data: values of a bundle's configuration that suit images, device and time."""
