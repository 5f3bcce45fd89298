drop function gateway.rehearse();
