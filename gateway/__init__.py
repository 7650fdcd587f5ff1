"""A multi-protocol gateway from GPS trackers to Redis streams."""
