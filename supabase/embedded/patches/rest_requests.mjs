// REST requests as PostgREST on hosted Supabase reads them.
//
// lite 0.10.0: a request without a profile header looks in "public" instead of the first exposed schema; "Prefer: tx=rollback"
// is confirmed and then commits; a bearer token that is no JWT counts as anonymous. Unfiltered UPDATE and DELETE are refused by
// a setting of lite's own (pg_safe_update, set in server.mjs).
import { errors, jwtVerify } from "jose";
import { currentRequest } from "./request_context.mjs";

const LEEWAY_S = 30;

/** Boundary for /rest/v1. */
export function restRequests({ schemas, jwtSecret }) {
  const secret = new TextEncoder().encode(jwtSecret);
  return async (request, next) => {
    const { pathname } = new URL(request.url);
    if (!pathname.startsWith("/rest/v1/") || request.method === "OPTIONS") return next(request);
    const refusal = await refuseToken(request.headers, secret);
    if (refusal) return refusal;
    const headers = new Headers(request.headers);
    const profile = request.method === "GET" || request.method === "HEAD" ? "accept-profile" : "content-profile";
    if (!headers.get(profile)) headers.set(profile, schemas[0]);
    dropTransactionPreference(headers);
    const asPostgrest = new Request(request, { headers });
    Object.assign(currentRequest(), { request: asPostgrest });
    return next(asPostgrest);
  };
}

function dropTransactionPreference(headers) {
  const prefer = headers.get("prefer");
  if (!prefer) return;
  const kept = prefer.split(",").filter((part) => !/^\s*tx\s*=/i.test(part));
  if (kept.length > 0) headers.set("prefer", kept.join(","));
  else headers.delete("prefer");
}

/** The 401 for a bearer token PostgREST would refuse, else undefined. API keys (sb_…) pass only when they are the apikey too. */
async function refuseToken(headers, secret) {
  const token = /^Bearer\s+(.*)$/i.exec(headers.get("authorization") ?? "")?.[1].trim();
  if (token === undefined || (token.startsWith("sb_") && token === headers.get("apikey"))) return undefined;
  const parts = token.split(".");
  if (parts.length !== 3 || parts.some((part) => part === "")) {
    return refuse("PGRST301", `Expected 3 parts in JWT; got ${parts.filter(Boolean).length}`);
  }
  try {
    const { payload } = await jwtVerify(token, secret, { algorithms: ["HS256"], clockTolerance: LEEWAY_S });
    return payload.intent === undefined ? undefined : refuse("PGRST301", "No suitable key or wrong key type"); // a storage link
  } catch (error) {
    if (error instanceof errors.JWTExpired) return refuse("PGRST303", "JWT expired");
    return refuse("PGRST301", "No suitable key or wrong key type");
  }
}

function refuse(code, message) {
  return Response.json({ code, details: null, hint: null, message }, {
    status: 401,
    headers: { "www-authenticate": `Bearer error="invalid_token", error_description="${message}"`, "access-control-allow-origin": "*" },
  });
}
