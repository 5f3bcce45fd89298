-- Run after lite's tables exist: the service roles own them, and the request roles may use storage as far as its policies let them.
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
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;

grant select, insert, update, delete on all tables in schema auth to service_role;
grant select, insert, update, delete on all tables in schema storage to anon, authenticated, service_role;
grant execute on all functions in schema storage to anon, authenticated, service_role;
