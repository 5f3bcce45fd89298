// Makes a plain PostgreSQL look like a fresh hosted Supabase project. May be run any number of times.
import { readFileSync } from "node:fs";
import { getAuthSchemaSql, getStorageSchemaSql } from "@supabase/lite";
import postgres from "postgres";

const LOCK = 4_276_001; // two processes must not bootstrap one database at once: "create role" has no "if not exists"

/** Afterwards the database at `url` has Supabase's roles, schemas, functions, auth tables and storage tables. All or nothing. */
export async function bootstrap(url) {
  const database = postgres(url, { max: 1, onnotice: () => {}, connect_timeout: 10 });
  try {
    await database.begin(async (transaction) => {
      await transaction`select pg_advisory_xact_lock(${LOCK})`;
      await transaction.unsafe("set local client_min_messages = warning");
      for (const sql of [local("bootstrap.sql"), getAuthSchemaSql(), getStorageSchemaSql(), local("bootstrap_grants.sql")]) {
        await transaction.unsafe(sql);
      }
    });
  } finally {
    await database.end({ timeout: 5 });
  }
}

function local(name) {
  return readFileSync(new URL(name, import.meta.url), "utf8");
}
