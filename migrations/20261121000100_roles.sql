-- The roles of Supabase must be there; ours is added. No password stands in a migration: whoever runs the stack sets it with
-- `alter role gateway_service password '…'`, and until then nobody can log in as it.
do $$
declare
    missing text;
begin
    select string_agg(wanted.name, ', ') into missing
    from unnest(array['anon', 'authenticated', 'service_role']) as wanted (name)
    where to_regrole(wanted.name) is null;

    if missing is not null or to_regclass('auth.users') is null or to_regclass('auth.sessions') is null then
        raise exception 'This is not a Supabase database: %.',
            coalesce('the roles ' || missing || ' are missing', 'the tables auth.users and auth.sessions are missing')
            using hint = 'Point the migrations at a Supabase project, or start the embedded stack, which prepares its database first.';
    end if;
end
$$;

do $$
begin
    create role gateway_service login noinherit;
exception
    -- roles belong to the cluster: another database of it may have made this one, even at this very moment
    when duplicate_object or unique_violation then null;
end
$$;

comment on role gateway_service is
    'The LLM gateway''s login. It may execute the functions of schema gateway that are granted to it, and nothing else.';

-- the ledger's calls take milliseconds; what lasts longer than this holds up paying callers and is better refused
alter role gateway_service set statement_timeout = '5s';
alter role gateway_service set lock_timeout = '2s';
alter role gateway_service set idle_in_transaction_session_timeout = '5s';
