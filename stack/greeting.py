"""What `up` says once everything runs: where it is, and a first request that works as it stands."""

from stack.config import StackConfig
from stack.local_model import MODEL_ALIAS
from stack.secrets import Secrets

_FIRST_REQUEST = r"""
A first request (a person signs up, then asks the {model}):

  TOKEN=$(curl -s {api}/v1/auth/sign-up -H 'content-type: application/json' \
    -d '{{"email":"ada-'$(date +%s)'@example.com","password":"correct-Horse-9-battery"}}' \
    | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -N {gateway}/chat/completions -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' \
    -d '{{"model":"local/{alias}","stream":true,"messages":[{{"role":"user","content":"Name three colours."}}]}}'"""


def greeting(config: StackConfig, secrets: Secrets) -> str:
    lines = [
        "",
        "Buttress is up.",
        f"  API        {config.api_url}",
        f"  Gateway    {config.gateway_url}",
    ]
    if config.external_supabase:
        lines.append(f"  Supabase   {config.supabase_url}   (your own, by BUTTRESS_SUPABASE_URL)")
    else:
        lines += [
            f"  Supabase   {config.supabase_url}   key {secrets.publishable_key}",
            f"  Database   127.0.0.1:{config.db_port}   (its URL with the password: ./buttress status --json)",
            f"  Mailbox    {config.mailbox_file}",
        ]
    text = "\n".join(lines)
    if config.llm_enabled:
        text += "\n" + _FIRST_REQUEST.format(
            api=config.api_url, gateway=config.gateway_url, alias=MODEL_ALIAS, model="local model, tiny and often wrong"
        )
    else:
        text += f"\n  Model      none of our own (BUTTRESS_LLM=off); {MODEL_ALIAS} is not served"
    return text
