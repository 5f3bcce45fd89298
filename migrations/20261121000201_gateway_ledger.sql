-- The ledger's state. A call is a row of gateway.holds while it runs and a row of gateway.usage ever after: its request id is in
-- one of the two, never in both. gateway.meters adds them up, so that a hold decides by reading one row.
--
-- Locks are always taken in this order: meters (by scope, subject_id), then the hold. Whoever follows it cannot deadlock.
create table gateway.meters (
    scope text not null
        constraint scope_is_known check (scope in ('user')),
    subject_id uuid not null,
    requests_tat_ns bigint not null default 0,
    requests_limit integer not null default 0,
    tokens_tat_ns bigint not null default 0,
    tokens_limit bigint not null default 0,
    tokens_returned_ns bigint not null default 0,
    in_flight integer not null default 0
        constraint in_flight_is_a_count check (in_flight >= 0),
    month date not null default '-infinity',
    held_nano_usd bigint not null default 0
        constraint held_is_never_negative check (held_nano_usd >= 0),
    spent_nano_usd bigint not null default 0
        constraint spent_is_never_negative check (spent_nano_usd >= 0),
    primary key (scope, subject_id)
) with (
    -- rewritten twice a call: room on each page keeps the new versions beside the old ones (HOT), without index entries
    fillfactor = 40,
    autovacuum_vacuum_scale_factor = 0.05
);
comment on table gateway.meters is 'What one subject has used. One row a subject, made by its first call. No column of it is indexed but the key.';
comment on column gateway.meters.scope is 'What kind of subject. API keys and workspaces will be further kinds.';
comment on column gateway.meters.subject_id is 'The id of the user. No foreign key: it would lock a row of auth.users at each call.';
comment on column gateway.meters.requests_tat_ns is 'GCRA''s theoretical arrival time for requests per minute: when all of the limit is there again. Nanoseconds since 1970.';
comment on column gateway.meters.requests_limit is 'The limit requests_tat_ns was written under. When the limit has been edited since, the same number of requests counts as used of the new one.';
comment on column gateway.meters.tokens_tat_ns is 'The same for tokens per minute.';
comment on column gateway.meters.tokens_limit is 'The limit tokens_tat_ns was written under.';
comment on column gateway.meters.tokens_returned_ns is 'How far settlements have ever moved tokens_tat_ns back. Bounds what a later one may give back, see gateway.finish_call.';
comment on column gateway.meters.in_flight is 'How many holds there are.';
comment on column gateway.meters.month is 'The first day of the month (UTC) that spent_nano_usd is about.';
comment on column gateway.meters.held_nano_usd is 'The sum of cost_nano_usd of all holds, whenever they were made: at worst all of them are settled this month.';
comment on column gateway.meters.spent_nano_usd is 'The sum of cost_nano_usd of the usage settled in this month. May exceed the limit (debt) when a call cost more than it held.';

create table gateway.holds (
    request_id text collate "C" primary key
        constraint request_id_is_short check (length(request_id) between 1 and 64),
    attempt uuid not null,
    user_id uuid not null,
    workspace_id uuid,
    model text not null
        constraint model_is_short check (length(model) between 1 and 128),
    tokens bigint not null
        constraint tokens_are_never_negative check (tokens >= 0),
    tokens_end_ns bigint not null,
    cost_nano_usd bigint not null
        constraint cost_is_never_negative check (cost_nano_usd >= 0),
    held_at timestamptz not null,
    lease_expires_at timestamptz not null
        constraint lease_outlasts_the_hold check (lease_expires_at > held_at)
);
comment on table gateway.holds is 'The calls in flight, one row each, deleted by whoever finishes the call. Always small.';
comment on column gateway.holds.request_id is 'The id of the call.';
comment on column gateway.holds.attempt is 'Made anew for each hold by the client. Who lost the answer of a hold asks again, or voids it, with the same attempt, and cannot meet somebody else''s.';
comment on column gateway.holds.user_id is 'Whose meter is charged.';
comment on column gateway.holds.workspace_id is 'Where the user worked, if they said so.';
comment on column gateway.holds.model is 'The public name of the model.';
comment on column gateway.holds.tokens is 'The most tokens the call may use.';
comment on column gateway.holds.tokens_end_ns is 'tokens_tat_ns after the hold plus tokens_returned_ns at that time.';
comment on column gateway.holds.cost_nano_usd is 'The most the call may cost.';
comment on column gateway.holds.held_at is 'When the call was admitted.';
comment on column gateway.holds.lease_expires_at is 'From then on the reaper may settle the call at what it held. Renewed by long streams.';

create index holds_by_lease on gateway.holds (lease_expires_at);
comment on index gateway.holds_by_lease is 'Lets the reaper find what has run out.';

create table gateway.usage (
    request_id text collate "C" not null,
    settled_at timestamptz not null,
    held_at timestamptz not null,
    user_id uuid not null,
    workspace_id uuid,
    state text not null
        constraint state_is_final check (state in ('settled', 'voided', 'expired')),
    outcome text
        constraint outcome_is_known check (outcome in ('ok', 'client_gone', 'cut', 'provider_error', 'unknown')),
    estimated boolean not null,
    model text not null,
    deployment text
        constraint deployment_is_short check (length(deployment) between 1 and 128),
    input_tokens bigint not null
        constraint input_tokens_are_never_negative check (input_tokens >= 0),
    cached_input_tokens bigint not null
        constraint cached_input_tokens_are_never_negative check (cached_input_tokens >= 0),
    output_tokens bigint not null
        constraint output_tokens_are_never_negative check (output_tokens >= 0),
    cost_nano_usd bigint not null
        constraint cost_is_never_negative check (cost_nano_usd >= 0),
    held_tokens bigint not null,
    held_nano_usd bigint not null,
    -- settled_at is in the key so that the table can be partitioned by it; request ids are unique by gateway.finish_call
    primary key (request_id, settled_at),
    constraint voided_calls_are_free check (
        state <> 'voided' or (outcome is null and cost_nano_usd = 0 and input_tokens + cached_input_tokens + output_tokens = 0)
    ),
    constraint finished_calls_say_how check (state = 'voided' or outcome is not null),
    constraint expired_calls_are_estimates check (
        state <> 'expired' or (estimated and outcome = 'unknown' and cost_nano_usd = held_nano_usd)
    )
);
comment on table gateway.usage is 'Every finished call, one narrow row each, written in the transaction that settled it. Never updated.';
comment on column gateway.usage.request_id is 'The id of the call.';
comment on column gateway.usage.settled_at is 'When the call was finished: the month and the day that pay for it.';
comment on column gateway.usage.held_at is 'When the call was admitted.';
comment on column gateway.usage.user_id is 'Who pays. No foreign key: what was spent stays on the books when the user is deleted.';
comment on column gateway.usage.workspace_id is 'Where the user worked, if they said so.';
comment on column gateway.usage.state is 'settled: cost what it used; voided: the provider did no work; expired: nobody came back within the lease, cost what was held.';
comment on column gateway.usage.outcome is 'How the call ended, null when it never began (voided).';
comment on column gateway.usage.estimated is 'True when the tokens are not the provider''s own count.';
comment on column gateway.usage.model is 'The public name of the model.';
comment on column gateway.usage.deployment is 'Which deployment of the model answered.';
comment on column gateway.usage.input_tokens is 'Prompt tokens that were not read from the provider''s cache. Of an expired call: all the tokens it held.';
comment on column gateway.usage.cached_input_tokens is 'Prompt tokens read from the provider''s cache.';
comment on column gateway.usage.output_tokens is 'Tokens the model wrote, reasoning included.';
comment on column gateway.usage.cost_nano_usd is 'What the call cost, nano-dollars (1e-9 USD).';
comment on column gateway.usage.held_tokens is 'What had been held for it, tokens.';
comment on column gateway.usage.held_nano_usd is 'What had been held for it, nano-dollars.';

create index usage_of_user on gateway.usage (user_id, settled_at);
comment on index gateway.usage_of_user is 'Behind api.usage_summary: one user''s calls of some days.';

alter table gateway.meters enable row level security;
alter table gateway.holds enable row level security;
alter table gateway.usage enable row level security;
