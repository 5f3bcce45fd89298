-- loses data: plans and the limits of single users, keys and workspaces
drop view gateway.effective_limits;
drop table gateway.limits;
drop table gateway.plans;
