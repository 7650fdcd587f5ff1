"""From commands that applications give to bytes that a device is told, and to one outcome of each."""
