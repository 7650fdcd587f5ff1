"""Several processes that share the work of one gateway: who starts them, and what they are."""
