-- Three schemas, three audiences: api is what PostgREST exposes, private is what policies and api functions call,
-- gateway is what the gateway's own login calls. A new schema grants nothing to public.
create schema api;
comment on schema api is 'Everything a signed-in person may reach through PostgREST: tables under row level security, and functions.';

create schema private;
comment on schema private is 'What policies and the functions of api stand on. Never exposed by PostgREST.';

create schema gateway;
comment on schema gateway is 'The ledger of the LLM gateway. Reached by the login gateway_service alone, through functions.';

grant usage on schema api to authenticated;
grant usage on schema private to authenticated;
grant usage on schema gateway to gateway_service;
