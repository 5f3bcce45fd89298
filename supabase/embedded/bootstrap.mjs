// Makes a plain PostgreSQL look like a fresh hosted Supabase project. May be run any number of times.
import { readFileSync } from "node:fs";
import { getAuthSchemaSql, getStorageSchemaSql } from "@supabase/lite";
import postgres from "postgres";
import { bytesOf } from "./request_limits.mjs";

const LOCK = 4_276_001; // two processes must not bootstrap one database at once: "create role" has no "if not exists"

/**
 * Afterwards the database has Supabase's roles, schemas, functions, auth tables and storage tables, and the buckets of
 * config.toml with the settings given there (lite 0.10.0 never makes them). All or nothing.
 */
export async function bootstrap({ databaseUrl, project }) {
  const database = postgres(databaseUrl, { max: 1, onnotice: () => {}, connect_timeout: 10 });
  try {
    await database.begin(async (transaction) => {
      await transaction`select pg_advisory_xact_lock(${LOCK})`;
      await transaction.unsafe("set local client_min_messages = warning");
      for (const sql of [local("bootstrap.sql"), getAuthSchemaSql(), getStorageSchemaSql(), local("bootstrap_grants.sql")]) {
        await transaction.unsafe(sql);
      }
      for (const [name, bucket] of Object.entries(project.storage.buckets)) await makeBucket(transaction, name, bucket);
    });
  } finally {
    await database.end({ timeout: 5 });
  }
}

async function makeBucket(transaction, name, { public: isPublic = false, file_size_limit: limit, allowed_mime_types: types }) {
  const bytes = limit === undefined ? null : bytesOf(limit);
  await transaction`
    insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
    values (${name}, ${name}, ${isPublic}, ${bytes}, ${types ?? null})
    on conflict (id) do update
    set public = excluded.public, file_size_limit = excluded.file_size_limit, allowed_mime_types = excluded.allowed_mime_types
  `;
}

function local(name) {
  return readFileSync(new URL(name, import.meta.url), "utf8");
}
