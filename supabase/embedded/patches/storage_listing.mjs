// A listing shows one folder: its files by their relative name, and each sub-folder once with a null id.
//
// lite 0.10.0 answers every object below the prefix under its full path. It still does the reading here, as the caller and so
// under the policies of storage.objects.

const LIST = /^\/storage\/v1\/object\/list\/[^/]+$/;
const SORTABLE = new Set(["name", "created_at", "updated_at", "last_accessed_at"]);

/** Boundary for POST /object/list/<bucket>. */
export async function listFolders(request, next) {
  if (request.method !== "POST" || !LIST.test(new URL(request.url).pathname)) return next(request);
  const wanted = await request.json().catch(() => ({}));
  const folder = folderOf(wanted.prefix ?? "");
  const headers = new Headers(request.headers);
  headers.delete("content-length");
  headers.set("content-type", "application/json");
  const response = await next(new Request(request.url, { method: "POST", headers, body: JSON.stringify({ prefix: folder }) }));
  if (!response.ok) return response;
  const answered = new Headers(response.headers);
  answered.delete("content-length");
  return Response.json(page(entries(await response.json(), folder), wanted), { headers: answered });
}

function folderOf(prefix) {
  const folder = prefix.replace(/^\/+|\/+$/g, "");
  return folder === "" ? "" : `${folder}/`;
}

function entries(objects, folder) {
  const found = new Map();
  for (const object of objects.filter(({ name }) => name.startsWith(folder))) {
    const [name, ...below] = object.name.slice(folder.length).split("/");
    if (below.length > 0) found.set(`${name}/`, emptyEntry(name));
    else found.set(name, { ...object, name });
  }
  return [...found.values()];
}

function emptyEntry(name) {
  return { name, id: null, updated_at: null, created_at: null, last_accessed_at: null, metadata: null };
}

function page(all, { search, sortBy, limit, offset = 0 }) {
  const column = SORTABLE.has(sortBy?.column) ? sortBy.column : "name";
  const direction = sortBy?.order === "desc" ? -1 : 1;
  const matching = search ? all.filter(({ name }) => name.toLowerCase().startsWith(search.toLowerCase())) : all;
  const sorted = matching.sort((a, b) => direction * compare(a[column] ?? "", b[column] ?? ""));
  return sorted.slice(offset, offset + (limit ?? 100));
}

function compare(a, b) {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
