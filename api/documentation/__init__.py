"""The OpenAPI document, and a page of it that needs nothing from the internet."""
