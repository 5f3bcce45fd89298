drop function gateway.standing();
