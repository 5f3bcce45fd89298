"""Makes access tokens byte by byte, true and false ones, without the library that checks them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "http://127.0.0.1:54321/auth/v1"
AUDIENCE = "authenticated"
SECRET = "a-test-secret-of-more-than-32-characters"
USER_ID = "0198c0de-0000-7000-8000-000000000001"

Json = Mapping[str, Any]  # claims and headers are whatever a forger likes


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: object) -> dict[str, object]:
    """The claims hosted Supabase always has, with `changes`; a change to `...` leaves the claim out."""
    now = int(time.time())
    everything: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 3600,
        "iat": now,
        "sub": USER_ID,
        "role": "authenticated",
        "aal": "aal1",
        "session_id": "11111111-2222-4333-8444-555555555555",
        "email": "ada@example.com",
        "phone": "",
        "is_anonymous": False,
        "app_metadata": {"provider": "email"},
        "user_metadata": {},
        **changes,
    }
    return {name: value for name, value in everything.items() if value is not ...}


def hs256(signing_input: bytes, secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), signing_input, hashlib.sha256).digest()


def forge(
    payload: Json | bytes | None = None,
    *,
    header: Json | bytes | None = None,
    secret: str = SECRET,
    signature: bytes | None = None,
) -> str:
    """A token signed with HS256, whatever its header and payload say; bytes are used as they are."""
    head = header if isinstance(header, bytes) else json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(claims() if payload is None else payload).encode()
    signing_input = f"{b64(head)}.{b64(body)}"
    if signature is None:
        signature = hs256(signing_input.encode(), secret)
    return f"{signing_input}.{b64(signature)}"


class SigningKey:
    """An issuer's ES256 or RS256 key pair; `jwk` is its public half as a key set has it."""

    def __init__(self, kid: str, algorithm: str = "ES256", *, rsa_bits: int = 2048) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._ec = ec.generate_private_key(ec.SECP256R1())
        self._rsa = rsa.generate_private_key(65537, rsa_bits) if algorithm == "RS256" else None

    @property
    def jwk(self) -> dict[str, object]:
        shared = {"kid": self.kid, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}
        if self._rsa is not None:
            numbers = self._rsa.public_key().public_numbers()
            return {"kty": "RSA", "n": _b64_int(numbers.n), "e": _b64_int(numbers.e), **shared}
        point = self._ec.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _b64_int(point.x, 32), "y": _b64_int(point.y, 32), **shared}

    def sign(self, signing_input: bytes) -> bytes:
        if self._rsa is not None:
            return self._rsa.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self._ec.sign(signing_input, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token(self, payload: Json | None = None, **header: object) -> str:
        """A token this key signed; `header` replaces or adds header fields, `...` leaves one out."""
        fields = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **header}
        head = json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()
        signing_input = f"{b64(head)}.{b64(json.dumps(payload or claims()).encode())}"
        return f"{signing_input}.{b64(self.sign(signing_input.encode()))}"


def key_set(*keys: SigningKey | Json) -> bytes:
    return json.dumps({"keys": [key.jwk if isinstance(key, SigningKey) else key for key in keys]}).encode()


def _b64_int(number: int, length: int | None = None) -> str:
    return b64(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))
