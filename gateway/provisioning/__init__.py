"""Setting trackers up by SMS: texts one at a time, answers read, until each reports to the gateway."""
