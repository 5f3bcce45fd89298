"""Brings the whole stack up and keeps it up until somebody asks for the end."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping

from core.settings import SettingsInvalid, load_settings
from stack import api, http_probe, local_model
from stack.config import ROOT, StackConfig
from stack.embedded import bring_up_database
from stack.environment import service_environment
from stack.errors import PartFailed, StackError
from stack.family import Family
from stack.processes import Child, describe_exit, log_tail
from stack.progress import Progress
from stack.restarts import MOST_ENDS, WINDOW_S, Restarts
from stack.secrets import Secrets
from stack.source_watch import SourceWatch

_LOOK_EVERY_S = 0.25
_READY_TIMEOUT_S = 60.0


def bring_up(config: StackConfig, secrets: Secrets, family: Family, progress: Progress) -> None:
    """Every part answers. The model loads while the rest comes up, since nothing else waits for it."""
    environment = service_environment(config, secrets)
    require_usable_settings({**os.environ, **environment})
    require_free_ports(config)
    model = family.start(local_model.part(config)) if config.llm_enabled else None
    if not config.external_supabase:
        bring_up_database(config, secrets, family, progress)
    with progress.step("Starting the API and the gateway"):
        child = family.start(api.part(config, environment))
        http_probe.wait_until_answers(child, config.api_port, "/health/ready", timeout_s=_READY_TIMEOUT_S)
    if model is not None:
        with progress.step("Waiting for the local model"):
            http_probe.wait_until_answers(model, config.llm_port, "/health", timeout_s=_READY_TIMEOUT_S)
    family.mark_ready()


def require_usable_settings(environ: Mapping[str, str]) -> None:
    """Raises: StackError naming every variable that the services would refuse, before anything is started."""
    try:
        load_settings(environ)
    except SettingsInvalid as error:
        raise StackError(str(error)) from error


def require_free_ports(config: StackConfig) -> None:
    """Raises: StackError naming the first port that somebody else listens on."""
    http_probe.require_free_port(config.api_port, "BUTTRESS_PORT", "API")
    if not config.external_supabase:
        http_probe.require_free_port(config.supabase_port, "BUTTRESS_SUPABASE_PORT", "Supabase")
        http_probe.require_free_port(config.db_port, "BUTTRESS_DB_PORT", "PostgreSQL")
    if config.llm_enabled:
        http_probe.require_free_port(config.llm_port, "BUTTRESS_LLM_PORT", "local model")


class Supervisor:
    """Starts again what ends by itself; gives up on a part that keeps ending."""

    def __init__(self, family: Family, progress: Progress, *, watch: SourceWatch | None = None) -> None:
        self._family = family
        self._progress = progress
        self._watch = watch
        self._restarts: defaultdict[str, Restarts] = defaultdict(Restarts)

    def run(self) -> None:
        """Never returns. Raises: StopRequested when asked to end; PartFailed when a part ended too often."""
        while True:
            self._look_after_parts(time.monotonic())
            self._follow_source()
            time.sleep(_LOOK_EVERY_S)

    def _look_after_parts(self, now_s: float) -> None:
        for name, child in list(self._family.children.items()):
            code = child.exit_code()
            restarts = self._restarts[name]
            if code is None:
                continue
            if restarts.due_at is None:
                self._note_end(name, child, code, now_s)
            elif restarts.is_due(now_s):
                restarts.due_at = None
                self._family.start(child.part)
                self._progress.note(f"{name} was started again")

    def _note_end(self, name: str, child: Child, code: int, now_s: float) -> None:
        child.stop()  # whatever it left in its group
        restarts = self._restarts[name]
        if name == "api" and self._watch is not None:
            restarts.due_at = math.inf
            self._progress.note(
                f"api {describe_exit(code)}; it waits for the next change.{log_tail(child.part.log_file)}"
            )
            return
        self._progress.note(f"{name} {describe_exit(code)}; it is being started again. Its log: {child.part.log_file}")
        if not restarts.note_end(now_s):
            raise PartFailed(
                f"{name} ended more than {MOST_ENDS} times within {WINDOW_S:.0f} s, so the stack stops. "
                f"See {child.part.log_file}."
            )

    def _follow_source(self) -> None:
        changed = self._watch.changed_file() if self._watch else None
        if changed is None:
            return
        self._progress.note(f"{changed.relative_to(ROOT)} changed; the API is being started again")
        part = self._family.children["api"].part
        self._family.stop("api")
        self._restarts["api"] = Restarts()
        self._family.start(part)
