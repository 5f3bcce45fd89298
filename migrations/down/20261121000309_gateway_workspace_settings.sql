-- loses data: every workspace's settings for calls to models
drop table gateway.workspace_settings;
