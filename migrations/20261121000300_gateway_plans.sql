-- Who may use how much, as rows: plans by name, and overrides for one user, API key or workspace. The ledger reads them at every
-- hold, so an edit counts from the next call on. What was used already is kept elsewhere (gateway.meters) and no edit touches it.
create table gateway.plans (
    name text primary key
        constraint name_is_a_slug check (name ~ '^[a-z][a-z0-9_-]{0,31}$'),
    is_default boolean not null default false,
    requests_per_minute integer
        constraint requests_per_minute_in_range check (requests_per_minute between 0 and 1000000),
    tokens_per_minute bigint
        constraint tokens_per_minute_in_range check (tokens_per_minute between 0 and 1000000000),
    calls_in_flight integer
        constraint calls_in_flight_in_range check (calls_in_flight between 0 and 100000),
    tokens_per_day bigint
        constraint tokens_per_day_in_range check (tokens_per_day between 0 and 1000000000000),
    nano_usd_per_day bigint
        constraint nano_usd_per_day_in_range check (nano_usd_per_day between 0 and 1000000000000000),
    nano_usd_per_month bigint
        constraint nano_usd_per_month_in_range check (nano_usd_per_month between 0 and 1000000000000000),
    models text[],
    max_output_tokens integer
        constraint max_output_tokens_in_range check (max_output_tokens between 1 and 1000000000),
    max_choices integer
        constraint max_choices_in_range check (max_choices between 1 and 128)
);
comment on table gateway.plans is 'Limits by name. Null is no limit, 0 forbids. Edit a row and the next call of everybody on the plan obeys it.';
comment on column gateway.plans.name is 'What gateway.limits.plan refers to.';
comment on column gateway.plans.is_default is 'True for exactly one plan: that of users who have none of their own. Without it no such user may call.';
comment on column gateway.plans.requests_per_minute is 'Calls begun per minute; as many may come at once, and then they refill steadily.';
comment on column gateway.plans.tokens_per_minute is 'Prompt and output tokens per minute; as many may come at once, and then they refill steadily.';
comment on column gateway.plans.calls_in_flight is 'Calls that may run at the same time.';
comment on column gateway.plans.tokens_per_day is 'Prompt and output tokens per calendar day, UTC.';
comment on column gateway.plans.nano_usd_per_day is 'Nano-dollars (1e-9 USD) per calendar day, UTC. At most a million dollars.';
comment on column gateway.plans.nano_usd_per_month is 'Nano-dollars (1e-9 USD) per calendar month, UTC. At most a million dollars.';
comment on column gateway.plans.models is 'The public names of the models that may be asked, as fallbacks too. Null: all.';
comment on column gateway.plans.max_output_tokens is 'What a caller asks for is clamped to this. Null: to what the model can.';
comment on column gateway.plans.max_choices is 'The most answers one call may ask for (n). Null: what the gateway allows.';

create unique index plans_have_one_default on gateway.plans (is_default) where is_default;
comment on index gateway.plans_have_one_default is 'Two defaults would make the limits of a user without a plan a matter of luck.';

create table gateway.limits (
    scope text collate "C" not null
        constraint scope_is_known check (scope in ('user', 'key', 'workspace')),
    subject_id uuid not null,
    plan text references gateway.plans (name) on update cascade,
    requests_per_minute integer
        constraint requests_per_minute_in_range check (requests_per_minute between 0 and 1000000),
    tokens_per_minute bigint
        constraint tokens_per_minute_in_range check (tokens_per_minute between 0 and 1000000000),
    calls_in_flight integer
        constraint calls_in_flight_in_range check (calls_in_flight between 0 and 100000),
    tokens_per_day bigint
        constraint tokens_per_day_in_range check (tokens_per_day between 0 and 1000000000000),
    nano_usd_per_day bigint
        constraint nano_usd_per_day_in_range check (nano_usd_per_day between 0 and 1000000000000000),
    nano_usd_per_month bigint
        constraint nano_usd_per_month_in_range check (nano_usd_per_month between 0 and 1000000000000000),
    primary key (scope, subject_id)
);
comment on table gateway.limits is 'What differs for one user, API key or workspace: a plan, or single limits. Without a row a user has the default plan, a key and a workspace have no limits of their own.';
comment on column gateway.limits.scope is 'What kind of subject: user, key or workspace.';
comment on column gateway.limits.subject_id is 'The id of the user, the API key or the workspace.';
comment on column gateway.limits.plan is 'Null: the default plan for a user, no plan for a key or a workspace.';
comment on column gateway.limits.requests_per_minute is 'Null for what the plan says.';
comment on column gateway.limits.tokens_per_minute is 'Null for what the plan says.';
comment on column gateway.limits.calls_in_flight is 'Null for what the plan says.';
comment on column gateway.limits.tokens_per_day is 'Null for what the plan says.';
comment on column gateway.limits.nano_usd_per_day is 'Null for what the plan says.';
comment on column gateway.limits.nano_usd_per_month is 'Null for what the plan says.';

create index limits_of_plan on gateway.limits (plan);
comment on index gateway.limits_of_plan is 'Behind the foreign key: renaming or deleting a plan finds who is on it.';

create view gateway.effective_limits with (security_invoker = true) as
select
    'user' collate "C" as scope,
    users.id as subject_id,
    coalesce(own.requests_per_minute, plans.requests_per_minute) as requests_per_minute,
    coalesce(own.tokens_per_minute, plans.tokens_per_minute) as tokens_per_minute,
    coalesce(own.calls_in_flight, plans.calls_in_flight) as calls_in_flight,
    coalesce(own.tokens_per_day, plans.tokens_per_day) as tokens_per_day,
    coalesce(own.nano_usd_per_day, plans.nano_usd_per_day) as nano_usd_per_day,
    coalesce(own.nano_usd_per_month, plans.nano_usd_per_month) as nano_usd_per_month
from auth.users as users
left join gateway.limits as own on own.scope = 'user' and own.subject_id = users.id
inner join gateway.plans as plans
    on case when own.plan is null then plans.is_default else plans.name = own.plan end
union all
select
    own.scope,
    own.subject_id,
    coalesce(own.requests_per_minute, plans.requests_per_minute),
    coalesce(own.tokens_per_minute, plans.tokens_per_minute),
    coalesce(own.calls_in_flight, plans.calls_in_flight),
    coalesce(own.tokens_per_day, plans.tokens_per_day),
    coalesce(own.nano_usd_per_day, plans.nano_usd_per_day),
    coalesce(own.nano_usd_per_month, plans.nano_usd_per_month)
from gateway.limits as own
left join gateway.plans as plans on plans.name = own.plan
where own.scope <> 'user';
comment on view gateway.effective_limits is 'The limits of every existing user, and of every key and workspace that has a row: its own, else its plan''s, else (users) the default plan''s. Null: no limit. A key or a workspace that is not here has none.';

alter table gateway.plans enable row level security;
alter table gateway.limits enable row level security;

insert into gateway.plans (
    name, is_default, requests_per_minute, tokens_per_minute, calls_in_flight, tokens_per_day, nano_usd_per_day, nano_usd_per_month
)
values
    ('free', true, 60, 200000, 10, 2000000, 2000000000, 5000000000),
    ('pro', false, 600, 2000000, 50, 50000000, 25000000000, 200000000000),
    ('team', false, 3000, 10000000, 200, 500000000, 250000000000, 2000000000000);
