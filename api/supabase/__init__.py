"""The first door into Postgres: PostgREST and Auth, always as the caller."""
