-- PostgreSQL lets everybody execute every new function. Only this form, without `in schema`, takes that away: the form with
-- `in schema` can add to the global default but not take from it, and anonymous callers could go on executing.
alter default privileges revoke execute on functions from public;
