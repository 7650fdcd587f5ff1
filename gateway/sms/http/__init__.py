"""SMS through HTTP, in and out: providers are data, templates that are filled in."""
