"""Whoever runs the gateway learns why it is not ready: the log has PostgreSQL's own words, the answer does not."""

from structlog.testing import capture_logs

from core.settings import load_settings
from llm_gateway import create_gateway
from tests.support.stack import RunningStack


async def test_refused_password_is_the_reason_in_the_log_and_hidden_from_callers(stack: RunningStack) -> None:
    url = stack.gateway_database_url.replace(stack.secrets.gateway_service_password, "wrong")
    gateway = create_gateway(load_settings({**stack.environment(), "BUTTRESS_GATEWAY_DATABASE_URL": url}))
    with capture_logs() as lines:
        async with gateway.lifespan():
            said = await gateway.unready_reason()
    assert said == "The gateway's database cannot be reached."
    (line,) = [line for line in lines if line["event"] == "gateway_database_down"]
    assert "password authentication failed" in line["reason"]
