"""What lives as long as the process and every request shares."""

from dataclasses import dataclass

import httpx
from litestar.di import NamedDependency

from api.auth.service import SignInGuards
from api.health.service import Readiness
from api.supabase.auth import SupabaseAuth
from core.settings import Settings
from core.tokens import TokenVerifier
from llm_gateway import KeyRing


@dataclass(frozen=True, slots=True)
class Services:
    """Made once, in the application's lifespan; found at `app.state.services`."""

    settings: Settings
    http: httpx.AsyncClient
    tokens: TokenVerifier
    auth: SupabaseAuth
    sign_in_guards: SignInGuards
    keys: KeyRing
    readiness: Readiness


SharedServices = NamedDependency[Services]
"""`services: SharedServices` in a handler's parameters."""
