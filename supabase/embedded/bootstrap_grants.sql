-- Run after lite's tables exist: the service roles own them, and the request roles may use storage as far as its policies let them.

-- How each session was signed in (hosted keeps it in the same table); the claim amr of access tokens is read from it.
create table if not exists auth.mfa_amr_claims (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references auth.sessions (id) on delete cascade,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  authentication_method text not null,
  unique (session_id, authentication_method)
);
do $$
declare
  relation record;
begin
  for relation in
    select namespace.nspname as schema_name, class.relname as name
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname in ('auth', 'storage') and class.relkind in ('r', 'p')
  loop
    execute format(
      'alter table %I.%I owner to %I', relation.schema_name, relation.name, 'supabase_' || relation.schema_name || '_admin'
    );
  end loop;
end
$$;

alter table auth.users enable row level security;
alter table auth.identities enable row level security;
alter table auth.sessions enable row level security;
alter table auth.refresh_tokens enable row level security;
alter table auth.flow_state enable row level security;
alter table auth.audit_log_entries enable row level security;
alter table auth.mfa_amr_claims enable row level security;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

grant select, insert, update, delete on all tables in schema auth to service_role;
grant select, insert, update, delete on all tables in schema storage to anon, authenticated, service_role;
grant execute on all functions in schema storage to anon, authenticated, service_role;
