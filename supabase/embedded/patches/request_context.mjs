// Every request runs as the caller's role in one transaction, with the same settings real PostgREST makes.
//
// lite 0.10.0: (1) the first request grants ALL on every schema that holds an RLS table to anon, authenticated and
// service_role; (2) where no table has RLS it never leaves the superuser; (3) it sets claims in five round trips and never
// auth.email(); (4) it knows no role timeouts, no search_path, no read-only GET; (5) it switches to any role a token names.
import { AsyncLocalStorage } from "node:async_hooks";
import { sql } from "kysely";

const requests = new AsyncLocalStorage();

/** What of the HTTP request the database side needs; undefined outside of a request. */
export function currentRequest() {
  return requests.getStore();
}

/** Boundary: remembers the request for everything that runs below it. */
export function rememberRequest(request, next) {
  return requests.run({ request, url: new URL(request.url) }, () => next(request));
}

class Rollback extends Error {
  constructor(result) {
    super("rolled back on purpose");
    this.result = result;
  }
}

/** Connection mixin. `searchPath` are the schemas behind the requested one, as PostgREST's db-extra-search-path. */
export function withRequestContext(Base, { searchPath }) {
  return class extends Base {
    rlsState = "active";
    #roles;

    async ensureRlsContext() {
      return true; // grants are the migrations' business
    }

    async withContext(vars, work, options = {}) {
      if (options.transaction) {
        if (vars) await this.#enter(options.transaction, vars, options);
        return work(options.transaction);
      }
      if (!vars && !options.forceRollback) return work(this.kysely);
      try {
        return await this.kysely.transaction().execute(async (transaction) => {
          if (vars) await this.#enter(transaction, vars, options);
          const result = await work(transaction);
          if (options.forceRollback) throw new Rollback(result);
          return result;
        });
      } catch (error) {
        if (error instanceof Rollback) return error.result;
        throw error;
      }
    }

    async clearSchemaCache() {
      this.#roles = undefined;
      return super.clearSchemaCache();
    }

    async #enter(transaction, vars, options) {
      const role = vars.auth?.role || "anon";
      const known = await (this.#roles ??= this.#readRoles(transaction).catch((error) => {
        this.#roles = undefined;
        throw error;
      }));
      if (!known.settings.has(role)) {
        throw Object.assign(new Error(`permission denied to set role "${role}"`), { code: "42501" });
      }
      const settings = {
        ...known.settings.get(role),
        ...requestSettings(vars, options, searchPath),
        ...functionSettings(known.functions, options),
        role, // last: the settings before it may need more than the role has
      };
      const parts = Object.entries(settings).map(([name, value]) => sql`set_config(${name}, ${value}, true)`);
      await sql`select ${sql.join(parts)}`.execute(transaction);
    }

    /**
     * The roles authenticator may become, with their settings, and the timeouts functions carry (db-hoisted-tx-settings).
     * Read on the caller's own connection: when all are taken by transactions that wait for this, there is no other.
     */
    async #readRoles(transaction) {
      const roles = await sql`
        select rolname as name, coalesce(rolconfig, '{}') as settings
        from pg_catalog.pg_roles
        where not rolcanlogin and pg_catalog.pg_has_role('authenticator', oid, 'member') and rolname <> 'authenticator'
      `.execute(transaction);
      const functions = await sql`
        select namespace.nspname || '.' || proc.proname as name, proc.proconfig as settings
        from pg_catalog.pg_proc as proc
        join pg_catalog.pg_namespace as namespace on namespace.oid = proc.pronamespace
        where proc.proconfig::text like '%statement_timeout=%'
      `.execute(transaction);
      const read = ({ rows }) => new Map(rows.map((row) => [row.name, parseSettings(row.settings)]));
      return { settings: read(roles), functions: read(functions) };
    }
  };
}

function parseSettings(lines) {
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

function requestSettings(vars, options, searchPath) {
  const { auth, storage } = vars;
  const current = currentRequest();
  const claims = auth?.jwt && typeof auth.jwt === "object" ? auth.jwt : {};
  const role = auth?.role || "anon";
  const settings = {
    "request.jwt.claims": JSON.stringify({ role, ...claims }),
    "request.jwt.claim.sub": String(auth?.uid ?? ""),
    "request.jwt.claim.role": role,
    "request.jwt.claim.email": String(claims.email ?? ""),
    "storage.operation": String(storage?.operation ?? ""),
  };
  if (!current || !current.url.pathname.startsWith("/rest/v1/")) return settings;
  const { method, headers } = current.request;
  const reads = method === "GET" || method === "HEAD";
  return {
    ...settings,
    "request.method": method,
    "request.path": options.rpc?.path ?? current.url.pathname.slice("/rest/v1".length),
    "request.headers": JSON.stringify(Object.fromEntries(headers)),
    "response.status": "",
    "response.headers": "",
    search_path: [requestedSchema(headers, reads), ...searchPath].filter(Boolean).map(quoteIdentifier).join(", "),
    transaction_read_only: reads ? "on" : "off",
  };
}

function functionSettings(functions, options) {
  const current = currentRequest();
  if (!options.rpc || !current) return {};
  const { method, headers } = current.request;
  const name = options.rpc.path.slice("/rpc/".length);
  const timeout = functions.get(`${requestedSchema(headers, method === "GET" || method === "HEAD")}.${name}`)?.statement_timeout;
  return timeout === undefined ? {} : { statement_timeout: timeout };
}

function requestedSchema(headers, reads) {
  return headers.get(reads ? "accept-profile" : "content-profile");
}

function quoteIdentifier(name) {
  return `"${name.replaceAll('"', '""')}"`;
}
