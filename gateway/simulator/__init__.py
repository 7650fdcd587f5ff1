"""A fleet of ST-907 trackers to try a gateway with: C{gateway simulate}."""
