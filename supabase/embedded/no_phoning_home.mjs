// The server can open connections to its database and to nothing else: no telemetry, whatever a dependency tries.
//
// lite's telemetry lives in its CLI, which is not used here, and its packages are replaced in package.json; this is the belt.
import net from "node:net";

/** Afterwards every outgoing connection but those to the host and port (or the socket directory) of `databaseUrl` fails. */
export function allowOnlyDatabase(databaseUrl) {
  const { hostname, port } = new URL(databaseUrl);
  const allowed = { host: hostname.replace(/^\[|\]$/g, ""), port: Number(port || 5432) };
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function guarded(...given) {
    const [target] = Array.isArray(given[0]) ? given[0] : given;
    const options = typeof target === "object" && target !== null ? target : { port: target, host: given[1] };
    const isDatabase = options.path ? true : Number(options.port) === allowed.port && options.host === allowed.host;
    if (isDatabase) return connect.apply(this, given);
    this.destroy(new Error(`the embedded Supabase makes no outgoing connections (${options.host}:${options.port})`));
    return this;
  };
}
