-- What the contract tests of PostgREST, Auth and Storage look at. Made anew for each run, and removed by the same file's first line.
drop schema if exists probe_private cascade;
create schema if not exists api;
create schema probe_private;
grant usage on schema api to anon, authenticated, service_role;

drop table if exists api.probe_values, api.probe_rows, api.probe_owned cascade;

create table api.probe_values (
    id bigint generated always as identity primary key,
    at timestamptz,
    plain timestamp,
    exact numeric,
    big bigint,
    document jsonb
);
grant select, insert on api.probe_values to anon, authenticated;

create table api.probe_rows (id integer primary key, name text not null check (name <> 'bad'));
grant select, insert, update, delete on api.probe_rows to authenticated;

create table api.probe_owned (id integer primary key, owner uuid not null default auth.uid(), name text);
alter table api.probe_owned enable row level security;
grant select, insert on api.probe_owned to authenticated;
create policy "People see their own" on api.probe_owned for select to authenticated using (owner = (select auth.uid()));
create policy "People add their own" on api.probe_owned for insert to authenticated with check (owner = (select auth.uid()));

create table probe_private.secrets (id integer primary key);
alter table probe_private.secrets enable row level security;

create or replace function api.probe_whoami() returns text language sql as 'select current_user::text';
create or replace function api.probe_type(p jsonb) returns text language sql as 'select jsonb_typeof(p)';
create or replace function api.probe_echo(p jsonb) returns jsonb language sql as 'select p';
create or replace function api.probe_sleep(seconds double precision) returns void language sql as 'select pg_sleep(seconds)';
create or replace function api.probe_impatient() returns void language sql set statement_timeout = '200ms' as 'select pg_sleep(20)';
create or replace function api.probe_refuse(state text) returns void language plpgsql as $$
begin
    raise exception using errcode = state, message = 'refused', detail = 'the detail', hint = 'the hint';
end
$$;
create or replace function api.probe_context() returns jsonb language sql stable as $$
    select jsonb_build_object(
        'uid', auth.uid(),
        'email', auth.email(),
        'role', auth.role(),
        'subject', auth.jwt() ->> 'sub',
        'search_path', current_setting('search_path'),
        'read_only', current_setting('transaction_read_only'),
        'timeout', current_setting('statement_timeout'),
        'header', current_setting('request.headers', true)::jsonb ->> 'x-probe'
    )
$$;

create or replace view api.probe_request as
    select current_setting('request.method', true) as method, current_setting('request.path', true) as path;
grant select on api.probe_request to authenticated;

drop policy if exists "Probe: people use their own folder" on storage.objects;
create policy "Probe: people use their own folder" on storage.objects to authenticated
    using (bucket_id = 'papers' and (storage.foldername(name))[1] = (select auth.uid())::text)
    with check (bucket_id = 'papers' and (storage.foldername(name))[1] = (select auth.uid())::text);

notify pgrst, 'reload schema';
