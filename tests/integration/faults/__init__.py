"""The fault suite: whatever breaks, nothing that was acknowledged is lost, and nothing is published twice."""
