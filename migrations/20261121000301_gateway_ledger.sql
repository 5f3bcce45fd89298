-- The ledger's state. A call is a row of gateway.holds while it runs and a row of usage ever after: its request id is in one of the
-- two, never in both. gateway.meters adds them up, so that a hold decides by reading a row for each subject it is charged to.
--
-- Locks are always taken in this order: meters (by scope, subject_id), then holds. Whoever follows it cannot deadlock.
--
-- The three tables that every call writes have few constraints: PostgreSQL reads a constraint anew for each statement. Only the
-- functions of the next files write here, and their tests hold what constraints would.
create table gateway.meters (
    scope text collate "C" not null,
    subject_id uuid not null,
    requests_tat_ns bigint not null default 0,
    requests_limit integer,
    tokens_tat_ns bigint not null default 0,
    tokens_limit bigint,
    tokens_returned_ns bigint not null default 0,
    in_flight integer not null default 0,
    held_tokens bigint not null default 0,
    held_nano_usd bigint not null default 0,
    day date not null default '-infinity',
    day_tokens bigint not null default 0,
    day_nano_usd bigint not null default 0,
    month date not null default '-infinity',
    month_nano_usd bigint not null default 0,
    primary key (scope, subject_id),
    constraint nothing_is_negative check (least(in_flight, held_tokens, held_nano_usd) >= 0)
) with (
    -- rewritten at every call: room on each page keeps the new versions beside the old ones (HOT), without index entries
    fillfactor = 40,
    autovacuum_vacuum_scale_factor = 0.05
);
comment on table gateway.meters is 'What one subject has used. One row a subject, made by the first call that names it, whether it has limits or not. No column of it is indexed but the key.';
comment on column gateway.meters.scope is 'What kind of subject: user, key or workspace.';
comment on column gateway.meters.subject_id is 'The id of the user, key or workspace. No foreign key: it would lock a row of theirs at each call.';
comment on column gateway.meters.requests_tat_ns is 'GCRA''s theoretical arrival time for requests per minute: when all of the limit is there again. Nanoseconds since 1970.';
comment on column gateway.meters.requests_limit is 'The limit requests_tat_ns was written under; null: it never was. When the limit has been edited since, the same number of requests counts as used of the new one.';
comment on column gateway.meters.tokens_tat_ns is 'The same for tokens per minute.';
comment on column gateway.meters.tokens_limit is 'The limit tokens_tat_ns was written under; null: it never was.';
comment on column gateway.meters.tokens_returned_ns is 'How far settlements have ever moved tokens_tat_ns back. Bounds what a later one may give back.';
comment on column gateway.meters.in_flight is 'How many holds there are.';
comment on column gateway.meters.held_tokens is 'The sum of tokens of all holds, whenever they were made: at worst all of them are settled today.';
comment on column gateway.meters.held_nano_usd is 'The same of cost_nano_usd.';
comment on column gateway.meters.day is 'The day (UTC) that day_tokens and day_nano_usd are about.';
comment on column gateway.meters.day_tokens is 'The tokens of the calls settled on this day. May exceed the limit (debt) when a call used more than it held.';
comment on column gateway.meters.day_nano_usd is 'The cost of the calls settled on this day, nano-dollars; debt likewise.';
comment on column gateway.meters.month is 'The first day of the month (UTC) that month_nano_usd is about.';
comment on column gateway.meters.month_nano_usd is 'The cost of the calls settled in this month, nano-dollars; debt likewise.';

create table gateway.holds (
    request_id text collate "C" primary key,
    attempt uuid not null,
    user_id uuid not null,
    key_id uuid,
    workspace_id uuid,
    model text not null,
    tokens bigint not null,
    user_tokens_end_ns bigint not null,
    key_tokens_end_ns bigint not null,
    workspace_tokens_end_ns bigint not null,
    cost_nano_usd bigint not null,
    held_at timestamptz not null,
    lease_expires_at timestamptz not null
);
comment on table gateway.holds is 'The calls in flight, one row each, deleted by whoever finishes the call. Always small.';
comment on column gateway.holds.request_id is 'The id of the call.';
comment on column gateway.holds.attempt is 'Made anew for each hold by the client. Who lost the answer of a hold asks again, or voids it, with the same attempt, and cannot meet somebody else''s.';
comment on column gateway.holds.user_id is 'Whose meter is charged.';
comment on column gateway.holds.key_id is 'The API key that called, whose meter is charged too.';
comment on column gateway.holds.workspace_id is 'The workspace called for, whose meter is charged too.';
comment on column gateway.holds.model is 'The public name of the model.';
comment on column gateway.holds.tokens is 'The most tokens the call may use.';
comment on column gateway.holds.user_tokens_end_ns is 'tokens_tat_ns of the user''s meter after the hold plus its tokens_returned_ns at that time; 0 where it had no limit.';
comment on column gateway.holds.key_tokens_end_ns is 'The same of the key''s meter.';
comment on column gateway.holds.workspace_tokens_end_ns is 'The same of the workspace''s meter.';
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
    key_id uuid,
    workspace_id uuid,
    cost_nano_usd bigint not null,
    held_nano_usd bigint not null,
    held_tokens bigint not null,
    input_tokens integer not null default 0,
    cached_input_tokens integer not null default 0,
    cache_write_5m_tokens integer not null default 0,
    cache_write_1h_tokens integer not null default 0,
    input_audio_tokens integer not null default 0,
    output_tokens integer not null default 0,
    reasoning_tokens integer not null default 0,
    output_audio_tokens integer not null default 0,
    images integer not null default 0,
    estimated boolean not null,
    state text not null,
    outcome text,
    endpoint text,
    model text not null,
    deployment text,
    -- settled_at is here because the table is partitioned by it; that an id is finished once is the work of gateway.holds
    primary key (request_id, settled_at)
) partition by range (settled_at);
comment on table gateway.usage is 'Every finished call of the days that are not added up yet (today, and mostly yesterday), one narrow row each, written in the transaction that settled it. Never updated. gateway.upkeep adds a finished day up into gateway.usage_daily and moves its partition to gateway.usage_archive in one transaction: reports add gateway.usage_daily and this table, and count nothing twice.';
comment on column gateway.usage.request_id is 'The id of the call.';
comment on column gateway.usage.settled_at is 'When the call was finished: the day and the month that pay for it.';
comment on column gateway.usage.held_at is 'When the call was admitted.';
comment on column gateway.usage.user_id is 'Who pays. No foreign key: what was spent stays on the books when the user is deleted.';
comment on column gateway.usage.key_id is 'The API key that called, if it was one.';
comment on column gateway.usage.workspace_id is 'The workspace called for, if there was one.';
comment on column gateway.usage.state is 'settled: cost what it used; voided: the provider did no work; expired: nobody came back within the lease, cost what was held.';
comment on column gateway.usage.outcome is 'How the call ended, null when it never began (voided).';
comment on column gateway.usage.estimated is 'True when the tokens are not the provider''s own count.';
comment on column gateway.usage.endpoint is 'What was asked: chat, responses, embeddings, messages, count_tokens. Null when nobody said (voided, expired).';
comment on column gateway.usage.model is 'The public name of the model.';
comment on column gateway.usage.deployment is 'Which deployment of the model answered.';
comment on column gateway.usage.input_tokens is 'Fresh prompt tokens: neither read from nor written to a provider''s cache, not audio. Of an expired call: all the tokens it held.';
comment on column gateway.usage.cached_input_tokens is 'Prompt tokens read from the provider''s cache.';
comment on column gateway.usage.cache_write_5m_tokens is 'Prompt tokens written to the provider''s cache for five minutes.';
comment on column gateway.usage.cache_write_1h_tokens is 'Prompt tokens written to the provider''s cache for an hour.';
comment on column gateway.usage.input_audio_tokens is 'Prompt tokens that were sound.';
comment on column gateway.usage.output_tokens is 'Tokens of visible text and tool arguments.';
comment on column gateway.usage.reasoning_tokens is 'Tokens the model thought with; charged as output.';
comment on column gateway.usage.output_audio_tokens is 'Tokens of sound that were made.';
comment on column gateway.usage.images is 'Pictures that were made. Not tokens.';
comment on column gateway.usage.cost_nano_usd is 'What the call cost, nano-dollars (1e-9 USD).';
comment on column gateway.usage.held_tokens is 'What had been held for it, tokens.';
comment on column gateway.usage.held_nano_usd is 'What had been held for it, nano-dollars.';

create index usage_of_user on gateway.usage (user_id, settled_at);
comment on index gateway.usage_of_user is 'Behind reports: one user''s calls of some days.';
create index usage_of_workspace on gateway.usage (workspace_id, settled_at) where workspace_id is not null;
comment on index gateway.usage_of_workspace is 'Behind reports: one workspace''s calls of some days.';

create table gateway.usage_other partition of gateway.usage default;
comment on table gateway.usage_other is 'Finished calls of days that have no partition: none was made in time, or a clock was wrong. Added up and moved like the others.';

create table gateway.usage_archive (like gateway.usage including all) partition by range (settled_at);
comment on table gateway.usage_archive is 'The finished calls of days that are added up in gateway.usage_daily, row by row, until gateway.upkeep drops them by age.';
create table gateway.usage_archive_other partition of gateway.usage_archive default;
comment on table gateway.usage_archive_other is 'What came from gateway.usage_other.';

create table gateway.usage_daily (
    day date not null,
    user_id uuid not null,
    key_id uuid,
    workspace_id uuid,
    model text not null,
    endpoint text,
    calls bigint not null,
    estimated_calls bigint not null,
    input_tokens bigint not null,
    cached_input_tokens bigint not null,
    cache_write_5m_tokens bigint not null,
    cache_write_1h_tokens bigint not null,
    input_audio_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    output_audio_tokens bigint not null,
    images bigint not null,
    cost_nano_usd bigint not null,
    constraint one_row_each unique nulls not distinct (user_id, day, model, endpoint, key_id, workspace_id)
);
comment on table gateway.usage_daily is 'The sums of finished days, without voided calls. A day is here once gateway.upkeep has added it up, and its rows are then no longer in gateway.usage.';
comment on column gateway.usage_daily.day is 'The day (UTC) on which the calls were settled.';
comment on column gateway.usage_daily.user_id is 'Who paid.';
comment on column gateway.usage_daily.key_id is 'With which API key, if any.';
comment on column gateway.usage_daily.workspace_id is 'For which workspace, if any.';
comment on column gateway.usage_daily.model is 'The public name of the model.';
comment on column gateway.usage_daily.endpoint is 'What was asked; null where nobody said.';
comment on column gateway.usage_daily.calls is 'Settled and expired calls.';
comment on column gateway.usage_daily.estimated_calls is 'Those of them whose tokens are not the provider''s own count.';
comment on column gateway.usage_daily.input_tokens is 'The sum of gateway.usage.input_tokens.';
comment on column gateway.usage_daily.cached_input_tokens is 'The sum of gateway.usage.cached_input_tokens.';
comment on column gateway.usage_daily.cache_write_5m_tokens is 'The sum of gateway.usage.cache_write_5m_tokens.';
comment on column gateway.usage_daily.cache_write_1h_tokens is 'The sum of gateway.usage.cache_write_1h_tokens.';
comment on column gateway.usage_daily.input_audio_tokens is 'The sum of gateway.usage.input_audio_tokens.';
comment on column gateway.usage_daily.output_tokens is 'The sum of gateway.usage.output_tokens.';
comment on column gateway.usage_daily.reasoning_tokens is 'The sum of gateway.usage.reasoning_tokens.';
comment on column gateway.usage_daily.output_audio_tokens is 'The sum of gateway.usage.output_audio_tokens.';
comment on column gateway.usage_daily.images is 'The sum of gateway.usage.images.';
comment on column gateway.usage_daily.cost_nano_usd is 'The sum of gateway.usage.cost_nano_usd.';

create index usage_daily_of_workspace on gateway.usage_daily (workspace_id, day) where workspace_id is not null;
comment on index gateway.usage_daily_of_workspace is 'Behind reports: one workspace''s days.';

alter table gateway.meters enable row level security;
alter table gateway.holds enable row level security;
alter table gateway.usage enable row level security;
alter table gateway.usage_other enable row level security;
alter table gateway.usage_archive enable row level security;
alter table gateway.usage_archive_other enable row level security;
alter table gateway.usage_daily enable row level security;
