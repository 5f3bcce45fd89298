drop function api.stored_calls(uuid, integer, timestamptz, uuid);
drop function api.change_llm_settings(uuid, jsonb);
drop function api.llm_settings(uuid);
drop function private.stored_calls(uuid, integer, timestamptz, uuid);
drop function private.change_llm_settings(uuid, jsonb);
drop function private.require_workspace_admin(uuid, text);
drop function private.llm_settings(uuid);
