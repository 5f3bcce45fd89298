"""Answers that were given before, given again to the same tenant for the same request: exact, opt-in, bounded."""
