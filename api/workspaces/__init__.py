"""Workspaces: what people share."""
