// The embedded Supabase: PostgREST, Auth and Storage for development and tests, on a PostgreSQL that somebody else runs.
//
//   node server.mjs bootstrap   makes the database look like a fresh hosted project (roles, schemas, auth.uid() …), then exits
//   node server.mjs serve       the same, then serves /rest/v1, /auth/v1, /storage/v1 and /health until SIGTERM
//
// Settings are environment variables: configuration.mjs lists them. @supabase/lite 0.10.0 does the work and is a development
// server with gaps; each module below closes some, says at its head which, and has a test in tests/contract/test_embedded_*.py
// that fails without it. BUTTRESS_EMBEDDED_SKIP_PATCH=<name> (only where BUTTRESS_ENV=test) leaves one out to show that.
//
//   on the way to the database (mixins around lite's PostgresConnection)
//     request-context      caller's role always, no GRANT ALL, role timeouts, auth.email(), search_path: one statement
//     schema-cache         reads the schema again after "notify pgrst"; one read however many ask
//     json-arguments       json and jsonb parameters arrive as the value that was sent
//     postgrest-errors     SQLSTATE -> PostgREST's status and body; the database being away -> 503
//     value-types          timestamps in ISO form, exact numeric and bigint
//   inside Auth (lite's middleware, around its AuthService)
//     auth-role            works as supabase_auth_admin, like hosted
//     sign-up              one transaction
//     access-tokens        all claims of hosted tokens
//     mailbox              e-mails to a file, links to the API
//   at the boundary (request in, response out; the first is outermost)
//     database-outage      503 while the database is away
//     request-limits       413 for bodies over the limit
//     rest-requests        default schema, tx=rollback dropped, strict bearer tokens
//     one-time-passwords   verify type "email"
//     storage-uploads, storage-links, storage-listing   what the official clients send and read
import { createServer } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { App, setExperimental } from "@supabase/lite";
import { PostgresConnection } from "@supabase/lite/postgres";
import { bootstrap } from "./bootstrap.mjs";
import { ConfigurationInvalid, readConfiguration } from "./configuration.mjs";
import { exitWhenTold, logError, quietConsole, surviveStrayErrors } from "./lifecycle.mjs";
import { allowOnlyDatabase } from "./no_phoning_home.mjs";
import { completeAccessTokens } from "./patches/access_tokens.mjs";
import { authAsItsOwnRole } from "./patches/auth_role.mjs";
import { answerOutage, impatientDriver, watchForOutage } from "./patches/database_outage.mjs";
import { withJsonArguments } from "./patches/json_arguments.mjs";
import { Mailbox } from "./patches/mailbox.mjs";
import { verifyByEmail } from "./patches/one_time_passwords.mjs";
import { withPostgrestErrors } from "./patches/postgrest_errors.mjs";
import { rememberRequest, withRequestContext } from "./patches/request_context.mjs";
import { restRequests } from "./patches/rest_requests.mjs";
import { withSchemaCache } from "./patches/schema_cache.mjs";
import { atomicSignUp } from "./patches/sign_up.mjs";
import { StorageFiles } from "./patches/storage_files.mjs";
import { storageLinks } from "./patches/storage_links.mjs";
import { listFolders } from "./patches/storage_listing.mjs";
import { unwrapUploads } from "./patches/storage_uploads.mjs";
import { valueTypes } from "./patches/value_types.mjs";
import { limitBodies } from "./request_limits.mjs";

// Longer than any client of ours keeps an idle connection (core/http.py: 30 s). Node's 5 s would hang up on a client that is just
// sending its next request: a POST that nobody may repeat is lost then. Hosted Supabase waits longer than a minute, too.
const KEEP_ALIVE_MS = 75_000;

const skipped = process.env.BUTTRESS_ENV === "test" ? process.env.BUTTRESS_EMBEDDED_SKIP_PATCH : undefined;

/** The values of `patches` in order, without the one a test left out. */
function enabled(patches) {
  return Object.entries(patches).filter(([name]) => name !== skipped).map(([, patch]) => patch);
}

function connector(configuration) {
  const mixins = enabled({
    "schema-cache": withSchemaCache,
    "request-context": (Base) => withRequestContext(Base, { searchPath: configuration.project.searchPath }),
    "json-arguments": withJsonArguments,
    "postgrest-errors": withPostgrestErrors,
  });
  const Connection = mixins.reduce((Base, mixin) => mixin(Base), PostgresConnection);
  const [defaultSchema] = configuration.project.api.schemas;
  const [types] = enabled({ "value-types": valueTypes });
  return (options) =>
    new Connection({
      url: configuration.databaseUrl,
      translation: { schemas: { defaultSchema } },
      postgresOptions: { ...impatientDriver, onnotice: () => {}, types, ...options },
    });
}

function boundary(configuration, app) {
  const handlers = [
    rememberRequest,
    ...enabled({
      "database-outage": answerOutage,
      "request-limits": limitBodies({ fileSizeLimit: configuration.project.storage.file_size_limit }),
      "rest-requests": restRequests({ schemas: configuration.project.api.schemas, jwtSecret: configuration.jwtSecret }),
      "one-time-passwords": verifyByEmail,
      "storage-uploads": unwrapUploads,
      "storage-links": storageLinks(configuration),
      "storage-listing": listFolders,
    }),
  ];
  return handlers.reduceRight((next, handler) => (request) => handler(request, next), app.fetch);
}

async function serve(configuration) {
  await bootstrap(configuration);
  setExperimental("storage", true);
  const connect = connector(configuration);
  const connection = connect();
  const authRole = authAsItsOwnRole(connect);
  const { api, auth, storage } = configuration.project;
  const app = new App({
    connection,
    api: { ...api, pg_safe_update: true },
    auth: {
      ...auth,
      jwt_secret: configuration.jwtSecret,
      publishable_key: configuration.publishableKey,
      secret_key: configuration.secretKey,
    },
    storage,
    studio: { enabled: false },
    options: {
      server: {
        admin: false,
        disableStudio: true,
        middlewares: [
          watchForOutage,
          ...enabled({
            "auth-role": authRole.use,
            "sign-up": atomicSignUp,
            "access-tokens": completeAccessTokens(configuration),
          }),
        ],
      },
    },
  });
  const [mailbox] = enabled({ mailbox: new Mailbox(configuration) });
  app._mailer = mailbox;
  app._storageAdapter = new StorageFiles(configuration.storageDirectory);
  await app.init();
  app.server.onError((error, context) => {
    logError("request failed", error);
    context.error = error;
    return context.json({ code: "unexpected_failure", message: "The server could not answer this request." }, 500);
  });
  if (skipped !== "schema-cache") await connection.followSchema();
  listen(configuration, boundary(configuration, app), () => Promise.all([connection.driver.end({ timeout: 1 }), authRole.close()]));
}

function listen(configuration, answer, close) {
  const respond = async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/health") return Response.json({ status: "ok" });
    if (!/^\/(rest|auth|storage)\/v1(\/|$)/.test(pathname)) return Response.json({ message: "not found" }, { status: 404 });
    return answer(request);
  };
  const onError = (error) => {
    logError("request failed", error);
    return Response.json({ code: "unexpected_failure", message: "The server could not answer this request." }, { status: 500 });
  };
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, getRequestListener(respond, { errorHandler: onError }));
  server.once("error", (error) => {
    logError("cannot listen", error);
    process.exit(1);
  });
  server.listen(configuration.port, configuration.host, () => {
    const url = configuration.publicUrl;
    process.stdout.write(`${JSON.stringify({ event: "ready", url })}\n`);
  });
  exitWhenTold(server, close, configuration);
}

async function main([command]) {
  if (command !== "serve" && command !== "bootstrap") throw new ConfigurationInvalid("usage: node server.mjs serve|bootstrap");
  const configuration = readConfiguration(process.env, command);
  allowOnlyDatabase(configuration.databaseUrl);
  quietConsole();
  if (command === "bootstrap") return bootstrap(configuration);
  await serve(configuration);
  surviveStrayErrors();
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const sentence = error instanceof ConfigurationInvalid ? error.message : `the embedded Supabase cannot start: ${error.message}`;
  process.stderr.write(`${sentence}\n`);
  process.exit(error instanceof ConfigurationInvalid ? 2 : 1);
}
