"""How every route speaks HTTP: envelope, refusals, bodies, pages, validators."""
