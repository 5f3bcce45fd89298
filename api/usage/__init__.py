"""What the caller has spent at the gateway."""
