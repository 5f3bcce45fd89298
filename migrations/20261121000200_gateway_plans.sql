-- What a user may use, as rows: a plan for everybody, and exceptions for one. The ledger reads them at every hold, so an edit
-- counts from the next call on. What was used already is kept elsewhere (gateway.meters) and is not touched by an edit.
create table gateway.plans (
    name text primary key
        constraint name_is_a_slug check (name ~ '^[a-z][a-z0-9_-]{0,31}$'),
    is_default boolean not null default false,
    requests_per_minute integer not null
        constraint requests_per_minute_in_range check (requests_per_minute between 0 and 1000000),
    tokens_per_minute bigint not null
        constraint tokens_per_minute_in_range check (tokens_per_minute between 0 and 1000000000),
    calls_in_flight integer not null
        constraint calls_in_flight_in_range check (calls_in_flight between 0 and 100000),
    nano_usd_per_month bigint not null
        constraint nano_usd_per_month_in_range check (nano_usd_per_month between 0 and 1000000000000000)
);
comment on table gateway.plans is 'Limits by name. 0 forbids. Edit a row and the next call of everybody on the plan obeys it.';
comment on column gateway.plans.name is 'What gateway.user_limits.plan refers to.';
comment on column gateway.plans.is_default is 'True for exactly one plan: that of users who have none of their own. Without it no such user may call.';
comment on column gateway.plans.requests_per_minute is 'Calls begun per minute; as many may come at once, and then they refill steadily.';
comment on column gateway.plans.tokens_per_minute is 'Prompt and output tokens per minute; as many may come at once, and then they refill steadily.';
comment on column gateway.plans.calls_in_flight is 'Calls that may run at the same time.';
comment on column gateway.plans.nano_usd_per_month is 'Nano-dollars (1e-9 USD) per calendar month, UTC. At most a million dollars.';

create unique index plans_have_one_default on gateway.plans (is_default) where is_default;
comment on index gateway.plans_have_one_default is 'Two defaults would make the limits of a user without a plan a matter of luck.';

create table gateway.user_limits (
    user_id uuid primary key references auth.users (id) on delete cascade,
    plan text references gateway.plans (name) on update cascade,
    requests_per_minute integer
        constraint requests_per_minute_in_range check (requests_per_minute between 0 and 1000000),
    tokens_per_minute bigint
        constraint tokens_per_minute_in_range check (tokens_per_minute between 0 and 1000000000),
    calls_in_flight integer
        constraint calls_in_flight_in_range check (calls_in_flight between 0 and 100000),
    nano_usd_per_month bigint
        constraint nano_usd_per_month_in_range check (nano_usd_per_month between 0 and 1000000000000000)
);
comment on table gateway.user_limits is 'What differs for one user: another plan, or single limits. A user without a row has the default plan.';
comment on column gateway.user_limits.user_id is 'The user; the row goes with them.';
comment on column gateway.user_limits.plan is 'Null for the default plan.';
comment on column gateway.user_limits.requests_per_minute is 'Null for what the plan says.';
comment on column gateway.user_limits.tokens_per_minute is 'Null for what the plan says.';
comment on column gateway.user_limits.calls_in_flight is 'Null for what the plan says.';
comment on column gateway.user_limits.nano_usd_per_month is 'Null for what the plan says.';

create index user_limits_of_plan on gateway.user_limits (plan);
comment on index gateway.user_limits_of_plan is 'Behind the foreign key: renaming or deleting a plan finds its users.';

create view gateway.effective_user_limits with (security_invoker = true) as
select
    users.id as user_id,
    coalesce(own.requests_per_minute, plans.requests_per_minute) as requests_per_minute,
    coalesce(own.tokens_per_minute, plans.tokens_per_minute) as tokens_per_minute,
    coalesce(own.calls_in_flight, plans.calls_in_flight) as calls_in_flight,
    coalesce(own.nano_usd_per_month, plans.nano_usd_per_month) as nano_usd_per_month
from auth.users as users
left join gateway.user_limits as own on own.user_id = users.id
inner join gateway.plans as plans
    on case when own.plan is null then plans.is_default else plans.name = own.plan end;
comment on view gateway.effective_user_limits is 'The limits of every existing user: their own, else their plan''s, else the default plan''s.';

alter table gateway.plans enable row level security;
alter table gateway.user_limits enable row level security;

insert into gateway.plans (name, is_default, requests_per_minute, tokens_per_minute, calls_in_flight, nano_usd_per_month)
values ('free', true, 60, 200000, 10, 5000000000);
