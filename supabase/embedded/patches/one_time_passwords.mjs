// POST /verify understands type "email", which official clients send for every code or link that went to an address.
//
// lite 0.10.0 answers 400 and wants "magiclink" or "signup": the code itself says which it is, so both are tried.

const MEANINGS = ["signup", "magiclink"];

/** Boundary for /auth/v1/verify. */
export async function verifyByEmail(request, next) {
  const { pathname } = new URL(request.url);
  if (request.method !== "POST" || pathname !== "/auth/v1/verify") return next(request);
  const text = await request.text();
  const body = parse(text);
  if (body?.type !== "email") return next(replay(request, text));
  let response;
  for (const type of MEANINGS) {
    response = await next(replay(request, JSON.stringify({ ...body, type })));
    if (response.ok) return response;
  }
  return response;
}

function replay(request, body) {
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  return new Request(request.url, { method: request.method, headers, body });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
