drop function gateway.forget_meters();
drop function gateway.forget_meters_at(timestamptz);
alter table gateway.bookkeeping drop column meters_forgotten_on;
