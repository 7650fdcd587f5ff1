"""SMS: the second channel to trackers, over whichever provider is configured."""
