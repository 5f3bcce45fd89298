// Signed links in the shape the official clients read, and the ways to download that they use.
//
// lite 0.10.0 answers {"signedUrl": "/storage/v1/…"} (the clients read signedURL, or url for uploads, relative to the Storage
// API), wants expiresIn as a number (the Python client sends a string), takes a batch for one link, does not know
// /object/authenticated, answers an expired link with 500, answers HEAD, Range, If-None-Match and ?download= as if they were not
// there, and describes an object (info) by its database row.

import { errors, jwtVerify } from "jose";

const PREFIX = "/storage/v1";
const CORS = { "access-control-allow-origin": "*" };
const SIGNED = /^\/object\/(upload\/)?sign\//;
const SIGN = /^\/object\/sign\/[^/]+(\/.+)?$/;
const SIGN_UPLOAD = /^\/object\/upload\/sign\/[^/]+\/.+/;
const INFO = /^\/object\/info\/(?:authenticated\/|public\/)?[^/]+\/.+/;
const DOWNLOAD = /^\/object\/(?!list|move|copy|info\/|upload\/)[^/]+\/.+/;

/** Boundary for /storage/v1. */
export function storageLinks({ jwtSecret }) {
  const secret = new TextEncoder().encode(jwtSecret);
  return async (request, next) => {
    const url = new URL(request.url);
    if (!url.pathname.startsWith(`${PREFIX}/`)) return next(request);
    const route = url.pathname.slice(PREFIX.length);
    const { method } = request;
    if (method !== "POST" && SIGNED.test(route)) {
      const refusal = await refuseLink(url.searchParams.get("token"), secret);
      if (refusal) return refusal;
    }
    if (method === "POST" && SIGN.test(route)) return sign(request, next);
    if (method === "POST" && SIGN_UPLOAD.test(route)) return reshape(await next(request), uploadLink);
    if (method === "GET" && INFO.test(route)) return reshape(await next(request), describe);
    if ((method === "GET" || method === "HEAD") && DOWNLOAD.test(route)) return download(request, url, next);
    return next(request);
  };
}

async function refuseLink(token, secret) {
  try {
    await jwtVerify(token ?? "", secret, { algorithms: ["HS256"] });
    return undefined;
  } catch (error) {
    const message = error instanceof errors.JWTExpired ? '"exp" claim timestamp check failed' : "invalid signature";
    return Response.json({ statusCode: "400", error: "InvalidJWT", message }, { status: 400, headers: CORS });
  }
}

async function sign(request, next) {
  const body = await request.json().catch(() => ({}));
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  const signOne = (url) =>
    next(new Request(url, { method: "POST", headers, body: JSON.stringify({ expiresIn: Number(body.expiresIn) }) }));
  if (!Array.isArray(body.paths)) return reshape(await signOne(request.url), downloadLink);
  const links = [];
  for (const path of body.paths) {
    const response = await signOne(`${request.url}/${String(path).split("/").map(encodeURIComponent).join("/")}`);
    const answer = await response.json();
    if (response.ok) links.push({ error: null, path, ...downloadLink(answer) });
    else links.push({ error: answer.message, path, signedURL: null });
  }
  return Response.json(links, { headers: CORS });
}

function downloadLink({ signedUrl }) {
  return { signedURL: relative(signedUrl) };
}

function uploadLink(answer) {
  return { url: relative(answer.signedUrl), token: answer.token };
}

function describe({ id, name, version, bucket_id, user_metadata, created_at, httpMetadata }) {
  return {
    id,
    name,
    version,
    bucket_id,
    size: httpMetadata.size,
    content_type: httpMetadata.mimetype,
    cache_control: httpMetadata.cacheControl,
    etag: httpMetadata.eTag,
    metadata: user_metadata,
    last_modified: httpMetadata.lastModified,
    created_at,
  };
}

function relative(link) {
  return link.startsWith(PREFIX) ? link.slice(PREFIX.length) : link;
}

async function reshape(response, transform) {
  if (!response.ok) return response;
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return Response.json(transform(await response.json()), { status: response.status, headers });
}

async function download(request, url, next) {
  const target = new URL(url);
  target.pathname = target.pathname.replace(`${PREFIX}/object/authenticated/`, `${PREFIX}/object/`);
  const response = await next(new Request(target, { method: request.method, headers: request.headers }));
  if (response.status !== 200) return response;
  const headers = new Headers(response.headers);
  if (url.searchParams.has("download")) {
    const name = url.searchParams.get("download") || decodeURIComponent(target.pathname.split("/").at(-1));
    headers.set("content-disposition", `attachment; filename*=UTF-8''${encodeURIComponent(name)}`);
  }
  if (headers.get("etag") !== null && request.headers.get("if-none-match") === headers.get("etag")) {
    await response.body?.cancel();
    headers.delete("content-length");
    return new Response(null, { status: 304, headers });
  }
  return new Response(response.body, { status: headers.has("content-range") ? 206 : 200, headers });
}
