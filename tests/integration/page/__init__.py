"""The operator's page of a running gateway."""
