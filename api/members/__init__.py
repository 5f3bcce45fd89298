"""Who belongs to a workspace, and as what."""
