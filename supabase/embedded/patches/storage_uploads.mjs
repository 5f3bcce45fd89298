// Uploads as the official clients send them: multipart forms, signed or not, with cacheControl as a form field.
//
// lite 0.10.0 refuses forms on signed uploads (415), ignores that field, and checks the size limit only where the client
// states a length.
import { currentRequest } from "./request_context.mjs";

const UPLOAD = /^\/storage\/v1\/object\/(?!list\/|list-v2\/|move$|copy$|info\/|sign\/|upload\/sign\/)[^/]+\/.+/;
const SIGNED_UPLOAD = /^\/storage\/v1\/object\/upload\/sign\/[^/]+\/.+/;

/** Boundary: hands lite the file alone, whole and with its length, its type and cache-control in headers. */
export async function unwrapUploads(request, next) {
  const { pathname } = new URL(request.url);
  const isUpload =
    (["POST", "PUT"].includes(request.method) && UPLOAD.test(pathname)) ||
    (request.method === "PUT" && SIGNED_UPLOAD.test(pathname));
  if (!isUpload) return next(request);
  const headers = new Headers(request.headers);
  const file = (headers.get("content-type") ?? "").startsWith("multipart/form-data")
    ? await fileOfForm(request, headers)
    : Buffer.from(await request.arrayBuffer());
  if (!file) return Response.json({ statusCode: "400", error: "InvalidRequest", message: "The form has no file" }, { status: 400 });
  headers.set("content-length", String(file.byteLength));
  headers.delete("transfer-encoding");
  const unwrapped = new Request(request.url, { method: request.method, headers, body: file });
  Object.assign(currentRequest(), { request: unwrapped });
  return next(unwrapped);
}

async function fileOfForm(request, headers) {
  let form;
  try {
    form = await request.formData();
  } catch {
    return undefined;
  }
  const file = [...form.values()].find((value) => typeof value !== "string");
  if (!file) return undefined;
  headers.set("content-type", file.type || "application/octet-stream");
  const cacheControl = form.get("cacheControl");
  if (typeof cacheControl === "string") {
    headers.set("cache-control", /^\d+$/.test(cacheControl) ? `max-age=${cacheControl}` : cacheControl);
  }
  return Buffer.from(await file.arrayBuffer());
}
