"""One call from first byte to settlement, in order, whatever format it is written in. Read this file first.

who          the credential, before a byte of the body is read
what         the body, the model in the catalogue, the most it may use
hold         every limit is charged for that most, or the call is refused, before anybody works for it
prepare      what rules about content make of it; whether the same was answered before: then only the request is charged
ask          a deployment; another only while nothing was answered and the last one did no work
answer       bytes as they come
settle       what was used; in a task of its own, so that no disconnect, fault or shutdown gets in between
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

from core.errors import ButtressError, InvalidInput, Unavailable
from core.logging import get_logger
from llm_gateway.asking import Asking
from llm_gateway.call import Call, error_of_interruption
from llm_gateway.caller import Caller, EndpointNotAllowed, ModelNotAllowed
from llm_gateway.callers import Callers
from llm_gateway.catalog import Catalog, EndpointUnanswered, PublicModel
from llm_gateway.client import Client
from llm_gateway.content.hooks import About, ContentRuleFailed
from llm_gateway.content.rules import ContentRules
from llm_gateway.delivery import deliver_again, deliver_stream, deliver_whole
from llm_gateway.directory import FRESH_S
from llm_gateway.keeping import Keeper
from llm_gateway.limits.ledger import CallTooLarge, Hold, HoldLost, HoldRequest, Ledger, LimitExceeded
from llm_gateway.metrics import Metrics
from llm_gateway.observation import Observer
from llm_gateway.plan import Plan, plan_call
from llm_gateway.providers.contract import ProviderFailure
from llm_gateway.recount import counted_plan, counted_where_known
from llm_gateway.routing.choose import order_routes
from llm_gateway.settlement import Charge, DetachedTasks
from llm_gateway.times import Times
from llm_gateway.wire.errors import ShuttingDown, error_of_failure
from llm_gateway.wire.format import Format, FormatRequest

log = get_logger(__name__)

# Rules about content work on so much of a request, a few milliseconds, for somebody who has nothing left to spend.
MOST_FOR_NOTHING_BYTES: Final = 32 * 1024


@dataclass(slots=True, kw_only=True)
class Pipeline:
    """Everything a call needs, shared by all of them."""

    catalog: Catalog
    callers: Callers
    ledger: Ledger
    asking: Asking
    max_body_bytes: int
    max_json_depth: int
    metrics: Metrics
    rules: ContentRules
    keeper: Keeper
    tasks: DetachedTasks = field(default_factory=DetachedTasks)
    calls: set[Call] = field(default_factory=set)  # in flight
    times: Times = field(default_factory=Times)
    leaving: bool = False  # told to stop: whoever can should call elsewhere
    draining: bool = False  # nothing new is taken
    observers: tuple[Observer, ...] = ()

    async def answer(self, format_: Format, client: Client, call_id: str) -> None:
        """The client has its answer, or has left; what the call used is settled, or is being settled.

        Raises: ButtressError where nothing was answered yet.
        """
        try:
            call = await self._admit(format_, client, call_id)
        except ButtressError as error:
            self._count_refusal(format_, client, error)
            raise
        await self._work(call, client)

    async def _admit(self, format_: Format, client: Client, call_id: str) -> Call:
        """A call that is held, and about which no provider has heard yet. Raises: ButtressError for every refusal."""
        if self.draining:
            raise ShuttingDown
        caller = await self._identify(format_, client)
        raw = await client.json_body(max_bytes=self.max_body_bytes)
        if perf_counter() - client.began_s > FRESH_S:  # a slow body is no way to call on with a key that has ended
            caller = await self._identify(format_, client)
        request = format_.parse(raw, client.headers, max_json_depth=self.max_json_depth)
        client.asked_model = request.model
        model = self.catalog.find(request.model)
        caller.policy.require_model(model.name)
        if format_.endpoint not in model.endpoints:
            raise EndpointUnanswered(model.name, format_.endpoint)
        rules = self.rules.about(
            About(call_id=call_id, caller=caller, endpoint=format_.endpoint, model=model.name, stream=request.stream)
        )
        kept = self.keeper.wishes(client, caller, model)
        plan, refusal = self._plan(format_, caller, request, model), None
        try:
            plan, hold, charge = await self._hold(caller, request, plan, call_id)
        except (LimitExceeded, CallTooLarge) as error:
            if kept.max_age_s is None or not _may_look_up(error, bool(rules), len(raw)):
                raise
            refusal = error
            plan, hold, charge = await self._hold(caller, request, Plan(()), call_id)
        client.limits = format_.dialect.limit_headers(hold.requests, hold.tokens)
        return Call(
            caller=caller,
            format_=format_,
            request=request,
            plan=plan,
            charge=charge,
            rules=rules,
            kept=kept,
            refusal=refusal,
            began_s=client.began_s,
            traceparent=client.header(b"traceparent"),
        )

    async def _identify(self, format_: Format, client: Client) -> Caller:
        caller = await self.callers.identify(client.headers)
        caller.policy.require_endpoint(format_.endpoint)
        return caller

    def _plan(self, format_: Format, caller: Caller, request: FormatRequest, model: PublicModel) -> Plan:
        routes = order_routes(
            self.catalog,
            model,
            endpoint=format_.endpoint,
            rests=self.asking.cooldowns.rests,
            allows=caller.policy.allows_model,
        )
        return plan_call(format_, request, routes, caller.policy)

    def _count_refusal(self, format_: Format, client: Client, error: ButtressError) -> None:
        self.metrics.refused(endpoint=format_.endpoint, model=client.asked_model, status=error.status)
        if isinstance(error, LimitExceeded | CallTooLarge):
            self.metrics.limit_reached(scope=error.scope, limit=error.limit_name)
        elif isinstance(error, ModelNotAllowed | EndpointNotAllowed):
            self.metrics.denied(error.code)
        elif isinstance(error, Unavailable):
            self.metrics.unavailable(error.code)

    async def _hold(
        self, caller: Caller, request: FormatRequest, plan: Plan, call_id: str
    ) -> tuple[Plan, Hold, Charge]:
        """Raises: LimitExceeded, CallTooLarge …; Unavailable, and then nothing may be asked of a provider.

        A prompt whose bytes do not fit is counted, and tried again. Cancelled or failed, it leaves nothing behind: the
        ledger sees to that.
        """
        charge = Charge(self.ledger, self.tasks, call_id)
        wanted = HoldRequest(
            request_id=call_id,
            user_id=caller.user_id,
            key_id=caller.key_id,
            workspace_id=caller.workspace_id,
            model=request.model,
            tokens=plan.tokens,
            cost_nano_usd=plan.cost_nano_usd,
            lease_s=self.times.lease,
        )
        try:
            return plan, await self.ledger.hold(wanted), charge
        except (LimitExceeded, CallTooLarge) as refusal:
            counted = await counted_plan(plan, request.body, refusal)
            if counted is None:
                raise
        wanted = replace(wanted, tokens=counted.tokens, cost_nano_usd=counted.cost_nano_usd)
        return counted, await self.ledger.hold(wanted), charge

    async def _work(self, call: Call, client: Client) -> None:
        """The call has been answered and resolved, whatever happened on the way."""
        status, error_code = 200, None
        self.calls.add(call)
        client.watch(call.cancel)
        try:
            await self._ask_and_answer(call, client)
        except ButtressError as error:
            status, error_code = error.status, error.code
            raise
        except asyncio.CancelledError:
            if not call.given:  # whoever has its whole answer need not wait until we have written the bill
                status, error_code = 499, "client_gone"  # nginx's number for it
            raise
        finally:  # synchronous: the task may be being cancelled
            call.abandon("client_gone")
            client.provider_s = call.provider_s
            self.calls.discard(call)
            client.stop_watching()
            client.has_own_log_line()
            call.over()
            if call.counted is None:
                self._report(call, status, error_code)
            else:
                self.tasks.start(self._report_counted(call, call.counted, status, error_code), name="report a call")

    async def _report_counted(self, call: Call, counted: asyncio.Event, status: int, error_code: str | None) -> None:
        await counted.wait()
        self._report(call, status, error_code)

    def _report(self, call: Call, status: int, error_code: str | None) -> None:
        """Whoever keeps, logs or adds up finished calls has this one."""
        record = call.report(status, error_code)
        if status == 200:
            self._keep(call, is_complete=record.error_code is None and record.outcome == "ok")
        for observer in (self.metrics, *self.observers):
            observer.finished(record)

    def _keep(self, call: Call, *, is_complete: bool) -> None:
        self.keeper.keep(
            call.kept,
            call_id=call.charge.request_id,
            caller=call.caller,
            endpoint=call.format.endpoint,
            request=call.request,
            is_complete=is_complete,
        )

    async def _prepare(self, call: Call, client: Client) -> None:
        """The request is what the rules about content made of it; what was answered to that before has been looked for.

        Raises: ContentDenied, ContentRuleFailed; the refusal of a call that may only be answered as before;
        InvalidInput for what the rules made of it.
        """
        endpoint, body = call.format.endpoint, await call.rules.request(call.request.body)
        changed = body is not call.request.body
        if changed:
            call.request = replace(call.request, body=body)
        await self.keeper.look_up(call.kept, client, call.caller, endpoint, call.request)
        if call.kept.hit is not None:
            return
        if call.refusal is not None:
            raise call.refusal
        if changed:
            plan = self._plan(call.format, call.caller, call.request, self.catalog.find(call.request.model))
            if call.needs_more(plan.hops[0]):  # the bytes grew, or were counted for the hold
                plan = await counted_where_known(plan, body)
            call.plan = plan

    async def _ask_and_answer(self, call: Call, client: Client) -> None:
        try:
            if call.rules or call.kept.max_age_s is not None:
                await self._prepare(call, client)
            if call.kept.hit is not None:
                await deliver_again(call, client, call.kept.hit)
                return
            await self.asking.ready(call)
            deadline_s = asyncio.get_running_loop().time() + call.plan.hops[0].deployment.timeouts.total_s
            await self.asking.ask(call, client, deadline_s)
            if call.request.stream:
                await deliver_stream(call, client, deadline_s=deadline_s)
            else:
                await deliver_whole(call, client)
        except ProviderFailure as failure:
            log.warning(
                "provider_failed",
                deployment=call.hop.deployment.id if call.hop else None,
                kind=failure.kind.value,
                status=failure.status,
                cause=type(failure.__cause__).__name__,  # its words may hold an address or a key
            )
            self.asking.count_failure(call.hop, failure)
            call.fail(failure)
            await call.resolved()
            raise error_of_failure(failure) from failure
        except (LimitExceeded, CallTooLarge) as refusal:  # of what is dearer than was held; nobody did any work
            self.metrics.limit_reached(scope=refusal.scope, limit=refusal.limit_name)
            client.limits = []  # the refusal says how they stand
            call.abandon("cut")
            await call.resolved()
            raise
        except (InvalidInput, ContentRuleFailed, HoldLost):  # ContentDenied is one
            call.abandon("cut")
            await call.resolved()
            raise
        except asyncio.CancelledError:
            interruption = call.interruption
            if interruption is None or client.gone:
                raise
            call.survive()
            call.abandon("cut")
            raise error_of_interruption(interruption) from None


def _may_look_up(refusal: LimitExceeded | CallTooLarge, has_rules: bool, body_bytes: int) -> bool:
    """Whether who cannot pay may be given an answer that was paid for before: rules work on a short request only."""
    is_rate = refusal.limit_name in {"requests_per_minute", "calls_in_flight"}
    return not is_rate and (not has_rules or body_bytes <= MOST_FOR_NOTHING_BYTES)
