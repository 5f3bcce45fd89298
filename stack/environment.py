"""The BUTTRESS_* variables that point a service at one embedded stack."""

import os

from stack.config import StackConfig
from stack.postgres import gateway_url
from stack.secrets import Secrets


def service_environment(config: StackConfig, secrets: Secrets) -> dict[str, str]:
    """Exactly the variables an API or gateway process needs, and nothing of the caller's.

    With a Supabase of the caller's own, only where this stack's own parts are found.
    """
    environment = {"BUTTRESS_LLM_URL": config.llm_url} if config.llm_enabled else {}
    if not config.external_supabase:
        environment |= {
            "BUTTRESS_ENV": os.environ.get("BUTTRESS_ENV") or "development",
            "BUTTRESS_SUPABASE_URL": config.supabase_url,
            "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": secrets.publishable_key,
            "BUTTRESS_SUPABASE_SECRET_KEY": secrets.secret_key,
            "BUTTRESS_JWT_SECRET": secrets.jwt_secret,
            "BUTTRESS_GATEWAY_DATABASE_URL": gateway_url(config, secrets),
            "BUTTRESS_KEY_PEPPER": secrets.key_pepper,
        }
    return environment
