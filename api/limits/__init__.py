"""How far each limit is used."""
