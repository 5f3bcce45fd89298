// Objects are files in a directory, with their MIME type and cache-control beside them.
//
// lite 0.10.0 exports no adapter for the file system; the one inside its CLI guesses the MIME type from the extension, leaves
// half-written files behind, and cannot hold both "a" and "a/b". Here a file's name is the hash of its key: no key can leave the
// directory, and none is too long.
import { createHash, randomUUID } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { currentRequest } from "./request_context.mjs";

export class StorageFiles {
  driver = null;
  #directory;

  constructor(directory) {
    this.#directory = path.resolve(directory);
  }

  async getObject(bucket, key) {
    let metadata;
    try {
      metadata = await this.headObject(bucket, key);
    } catch (error) {
      if (error.code === "ENOENT") return { httpStatusCode: 404, metadata: {}, body: undefined }; // lite then says "not found"
      throw error;
    }
    const range = parseRange(currentRequest()?.request.headers.get("range"), metadata.size);
    const body = await readBytes(this.#path(bucket, key), range ?? { start: 0, end: metadata.size - 1 });
    if (!range) return { httpStatusCode: 200, metadata, body };
    const contentRange = `bytes ${range.start}-${range.end}/${metadata.size}`;
    return { httpStatusCode: 206, metadata: { ...metadata, contentLength: body.byteLength, contentRange }, body };
  }

  async uploadObject(bucket, key, _version, body, contentType, givenCacheControl) {
    // lite forgets the header on signed uploads
    const cacheControl = currentRequest()?.request.headers.get("cache-control") ?? givenCacheControl;
    const bytes = Buffer.from(body instanceof Uint8Array ? body : await new Response(body).arrayBuffer());
    const described = { key, contentType, cacheControl, eTag: `"${createHash("md5").update(bytes).digest("hex")}"` };
    await this.#write(bucket, key, bytes, described);
    return this.headObject(bucket, key);
  }

  async headObject(bucket, key) {
    const file = this.#path(bucket, key);
    const [stats, described] = await Promise.all([stat(file), readFile(`${file}.json`, "utf8").then(JSON.parse)]);
    return {
      cacheControl: described.cacheControl,
      contentLength: stats.size,
      size: stats.size,
      mimetype: described.contentType,
      lastModified: stats.mtime,
      eTag: described.eTag,
      httpStatusCode: 200,
    };
  }

  async copyObject(sourceBucket, source, _version, targetBucket, target) {
    const file = this.#path(sourceBucket, source);
    const described = JSON.parse(await readFile(`${file}.json`, "utf8"));
    await this.#write(targetBucket, target, await readFile(file), { ...described, key: target });
    const { eTag, lastModified } = await this.headObject(targetBucket, target);
    return { httpStatusCode: 200, eTag, lastModified };
  }

  async deleteObject(bucket, key) {
    const file = this.#path(bucket, key);
    await Promise.all([rm(file, { force: true }), rm(`${file}.json`, { force: true })]);
  }

  async deleteObjects(bucket, keys) {
    await Promise.all(keys.map((key) => this.deleteObject(bucket, key)));
  }

  async privateAssetUrl(bucket, key) {
    return `file://${this.#path(bucket, key)}`;
  }

  #path(bucket, key) {
    const name = createHash("sha256").update(`${bucket}\0${key}`).digest("hex");
    return path.join(this.#directory, name.slice(0, 2), name);
  }

  /** Both files appear whole: written beside their place, then renamed into it. */
  async #write(bucket, key, bytes, described) {
    const file = this.#path(bucket, key);
    await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
    for (const [target, content] of [[`${file}.json`, JSON.stringify(described)], [file, bytes]]) {
      const temporary = `${target}.${randomUUID()}`;
      await writeFile(temporary, content, { mode: 0o600 });
      await rename(temporary, target);
    }
  }
}

async function readBytes(file, { start, end }) {
  const handle = await open(file, "r");
  try {
    const bytes = Buffer.alloc(end - start + 1);
    const { bytesRead } = await handle.read(bytes, 0, bytes.byteLength, start);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** One range of bytes ("bytes=0-9", "bytes=10-", "bytes=-5") that lies inside the object; anything else is no range. */
function parseRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (match[1] === "" && match[2] === "") || size === 0) return undefined;
  const start = match[1] === "" ? Math.max(size - Number(match[2]), 0) : Number(match[1]);
  const end = match[1] === "" || match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  return start <= end ? { start, end } : undefined;
}
