-- loses data: calls in flight and all usage
drop table gateway.usage_daily;
drop table gateway.usage_archive;
drop table gateway.usage;
drop table gateway.holds;
drop table gateway.meters;
