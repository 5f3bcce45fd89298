-- loses data: every API key
drop table gateway.api_key_secrets;
drop table gateway.api_keys;
drop function gateway.forget_limits_of_key();
