-- loses data: every profile
drop table api.profiles;
