"""Accounts and sessions, proxied to Supabase Auth."""
