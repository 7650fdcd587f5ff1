"""What an operator asks of a fleet, answered from what stands in Redis."""
