drop schema gateway;
drop schema private;
drop schema api;
