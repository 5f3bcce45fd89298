// While PostgreSQL is away every service answers 503 at once, and works again as soon as it is back.
//
// lite 0.10.0 answers 404 (an introspection that failed counts as an empty schema), 500, or not at all (the driver backs off
// for up to 20 seconds before it tries again).
import { currentRequest } from "./request_context.mjs";

const RETRY_AFTER_S = 1;
const DRIVER_CODES = new Set([
  "ECONNREFUSED", "ECONNRESET", "ENOENT", "EPIPE", "ETIMEDOUT",
  "CONNECTION_CLOSED", "CONNECTION_DESTROYED", "CONNECTION_ENDED", "CONNECT_TIMEOUT",
]);
const SQLSTATE = /^(08|57P0[123]$|53300$)/;

/** Driver options: give up on a connection soon, and try the next one soon. */
export const impatientDriver = { connect_timeout: 5, backoff: () => 0.2 };

export function isDatabaseDown(error) {
  const code = error?.code ?? error?.cause?.code;
  return typeof code === "string" && (DRIVER_CODES.has(code) || SQLSTATE.test(code));
}

export function rememberDatabaseDown() {
  const current = currentRequest();
  if (current) current.databaseDown = true;
}

/** lite's middleware: sees the errors that Auth and Storage answer with a 500 of their own. */
export async function watchForOutage(context, next) {
  await next();
  if (isDatabaseDown(context.error)) rememberDatabaseDown();
}

/** Boundary: the answer of the service asked, with status 503, when the database was the cause. */
export async function answerOutage(request, next) {
  const response = await next(request);
  const current = currentRequest();
  if (!current?.databaseDown || response.status < 500) return response;
  const headers = { "retry-after": String(RETRY_AFTER_S), "access-control-allow-origin": "*" };
  return Response.json(outageBody(current.url.pathname), { status: 503, headers });
}

function outageBody(pathname) {
  const message = "The database is not reachable. Try again shortly.";
  if (pathname.startsWith("/auth/v1/")) return { code: 503, error_code: "unexpected_failure", msg: message };
  if (pathname.startsWith("/storage/v1/")) return { statusCode: "503", error: "DatabaseUnavailable", message };
  return { code: "PGRST001", details: null, hint: null, message: "Database client error. Retrying the connection." };
}
