// A request body larger than its service allows is refused with 413 before lite sees any of it.

const MIB = 1024 * 1024;
const DEFAULT_LIMIT = 10 * MIB;
const FORM_OVERHEAD = MIB; // boundary lines and fields around an uploaded file
const DRAINED = 64 * MIB; // so much more is read and thrown away: a client that is cut off while it sends never sees the answer
const UNITS = { B: 1, KB: 1000, KIB: 1024, MB: 1e6, MIB, GB: 1e9, GIB: 1024 * MIB };

/** Boundary. `fileSizeLimit` is config.toml's notation ("50MiB"); objects may be that large, anything else 10 MiB. */
export function limitBodies({ fileSizeLimit = "50MiB" }) {
  const objectLimit = bytesOf(fileSizeLimit) + FORM_OVERHEAD;
  return async (request, next) => {
    if (!request.body) return next(request);
    const limit = new URL(request.url).pathname.startsWith("/storage/v1/object/") ? objectLimit : DEFAULT_LIMIT;
    const body = await readUpTo(limit, request.body);
    if (!body) return tooLarge(limit);
    const { method, headers, url } = request;
    return next(new Request(url, { method, headers, body }));
  };
}

/** The whole body, or undefined where it is larger than that. */
async function readUpTo(limit, stream) {
  let chunks = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.byteLength;
    if (size <= limit) chunks.push(chunk);
    else chunks = [];
    if (size > limit + DRAINED) break;
  }
  return size <= limit ? Buffer.concat(chunks) : undefined;
}

/** 52428800 for "50MiB"; what cannot be read counts as that. */
export function bytesOf(text) {
  const match = /^(\d+(?:\.\d+)?)\s*([KMG]?i?B)$/i.exec(text);
  return match ? Number(match[1]) * UNITS[match[2].toUpperCase()] : 50 * MIB;
}

function tooLarge(limit) {
  const message = `The request body is larger than the ${limit} bytes allowed here.`;
  return Response.json({ statusCode: "413", code: "413", error: "Payload too large", details: null, hint: null, message, msg: message }, {
    status: 413,
    headers: { connection: "close" },
  });
}
