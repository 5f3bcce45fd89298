"""Models that answer without litellm, whose import takes a gateway of a test's own four seconds of CPU."""

NATIVE_MODELS_TOML = """
[[models]]
name = "fake/chat"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{url}/v1"
api_key_env = "FAKE_PROVIDER_KEY"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, cached_input = 0.1, output = 2 }}

[[models]]
name = "fake/claude"
context_window = 8192
max_output_tokens = 256
endpoints = ["messages", "count_tokens"]

[[models.deployments]]
provider = "anthropic"
base_url = "{url}/v1"
api_key_env = "FAKE_PROVIDER_KEY"
model = "claude-scripted"

[models.deployments.price_usd_per_million_tokens]
input = 1
output = 2
cached_input = 0.1
cache_write_5m = 1.25
cache_write_1h = 2
"""
