-- Requests and answers of the workspaces that chose to keep theirs, after whatever was taken out of them; nobody else's, ever.
create table gateway.stored_contents (
    id uuid primary key default gen_random_uuid(),
    workspace_id uuid not null references api.workspaces (id) on delete cascade,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    call_id text not null
        constraint call_id_is_short check (length(call_id) between 1 and 64),
    user_id uuid not null,
    endpoint text not null,
    model text not null,
    is_stream boolean not null,
    is_cut boolean not null,
    request text not null
        constraint request_is_small check (octet_length(request) <= 1048576),
    answer text not null
        constraint answer_is_small check (octet_length(answer) <= 1048576)
);
comment on table gateway.stored_contents is 'What was asked and answered, as it went to the provider and to the caller. Only of workspaces whose settings say store_content, for store_days.';
comment on column gateway.stored_contents.id is 'Random, so that it tells nothing.';
comment on column gateway.stored_contents.workspace_id is 'Whose call it was, and whose owners and admins may read it.';
comment on column gateway.stored_contents.created_at is 'When the answer was complete.';
comment on column gateway.stored_contents.expires_at is 'From then on nobody sees it, and soon it is gone.';
comment on column gateway.stored_contents.call_id is 'The id of the call, as in gateway.usage.';
comment on column gateway.stored_contents.user_id is 'Who called.';
comment on column gateway.stored_contents.endpoint is 'What was asked: chat, responses, embeddings, messages.';
comment on column gateway.stored_contents.model is 'The public name of the model.';
comment on column gateway.stored_contents.is_stream is 'True where the answer is a stream of server-sent events, else it is JSON.';
comment on column gateway.stored_contents.is_cut is 'True where request or answer were longer than what is kept of them.';
comment on column gateway.stored_contents.request is 'The request as JSON, without pictures'' and files'' own bytes being looked into.';
comment on column gateway.stored_contents.answer is 'The answer as the caller got it.';

create index stored_contents_of_workspace on gateway.stored_contents (workspace_id, created_at desc, id desc);
comment on index gateway.stored_contents_of_workspace is 'Behind the foreign key, and behind the list that admins read, newest first.';
create index stored_contents_by_expiry on gateway.stored_contents (expires_at);
comment on index gateway.stored_contents_by_expiry is 'Lets the sweeper find what has expired.';

alter table gateway.stored_contents enable row level security;

create function gateway.store_content(
    p_workspace_id uuid,
    p_call_id text,
    p_user_id uuid,
    p_endpoint text,
    p_model text,
    p_is_stream boolean,
    p_is_cut boolean,
    p_request text,
    p_answer text
)
returns boolean
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_days integer;
begin
    -- locked, so that whoever turns it off at this moment either finds this row to delete, or keeps it from being written
    select settings.store_days into v_days
    from gateway.workspace_settings as settings
    where settings.workspace_id = p_workspace_id and settings.store_content
    for share;
    if not found then
        return false;
    end if;

    insert into gateway.stored_contents (
        workspace_id, expires_at, call_id, user_id, endpoint, model, is_stream, is_cut, request, answer
    )
    values (
        p_workspace_id, now() + v_days * interval '1 day', p_call_id, p_user_id, p_endpoint, p_model, p_is_stream, p_is_cut,
        p_request, p_answer
    );
    return true;
end
$$;
comment on function gateway.store_content(uuid, text, uuid, text, text, boolean, boolean, text, text) is
    'Request and answer are kept, if the workspace wants that at this moment; else false, and nothing is.';

create function gateway.sweep_contents()
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_swept bigint;
begin
    delete from gateway.stored_contents
    where id in (
        select expired.id
        from gateway.stored_contents as expired
        where expired.expires_at <= now()
        order by expired.expires_at
        limit 1000
        for update skip locked
    );
    get diagnostics v_swept = row_count;
    return v_swept;
end
$$;
comment on function gateway.sweep_contents() is 'Up to a thousand stored calls whose time is over are gone; how many.';

grant execute on function gateway.store_content(uuid, text, uuid, text, text, boolean, boolean, text, text) to gateway_service;
grant execute on function gateway.sweep_contents() to gateway_service;
