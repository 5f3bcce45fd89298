"""API keys: what a program calls the gateway with."""
