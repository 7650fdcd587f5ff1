"""The built-in devices: each module or folder here is one plugin, and ends with C{device}."""
