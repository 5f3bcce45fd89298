-- loses data: plans and the limits of single users
drop view gateway.effective_user_limits;
drop table gateway.user_limits;
drop table gateway.plans;
