"""What health looks like from outside: which part is down, and nothing of how."""

from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Every part this process needs answers. parts: by name."""

    status: Literal["ready"] = "ready"
    parts: dict[str, Literal["ok"]]
