-- How a rule of the business says no: PostgREST turns SQLSTATE PGRST into exactly this status and body.
create function private.refuse(status integer, code text, message text)
returns void
language plpgsql
set search_path = ''
as $$
begin
    raise sqlstate 'PGRST' using
        message = json_build_object('code', code, 'message', message, 'details', null, 'hint', null)::text,
        detail = json_build_object('status', status, 'headers', json_build_object())::text;
end
$$;
comment on function private.refuse(integer, text, text) is
    'Never returns: the transaction is over, and the caller gets this HTTP status, this stable code and this sentence.';

-- A signed-out token stays valid until it expires, because nobody asks the database about it. Here we do.
create function private.live_caller()
returns uuid
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
    caller uuid := (select auth.uid());
begin
    if not exists (
        select from auth.sessions
        where sessions.id = nullif((select auth.jwt()) ->> 'session_id', '')::uuid
            and sessions.user_id = caller
            and (sessions.not_after is null or sessions.not_after > now())
    ) then
        perform private.refuse(401, 'session_ended', 'This session has ended. Sign in again.');
    end if;
    return caller;
end
$$;
comment on function private.live_caller() is
    'The id of the caller, whose session has not been signed out. Refuses with session_ended (401) otherwise. For actions that cannot be undone.';

create function private.touch_updated_at()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    -- strictly later than before, so that it can serve as the version of the row (ETag) however fast two edits follow
    new.updated_at := greatest(clock_timestamp(), old.updated_at + interval '1 microsecond');
    return new;
end
$$;
comment on function private.touch_updated_at() is 'Trigger: updated_at of a changed row is now, and later than it was.';
