// The process ends when it is told to, when nobody is left to tell it, and never in the middle of an answer.

const GRACE_MS = 2000;

/** SIGTERM, SIGINT and, if asked for, the end of stdin (our parent died) close `server`, then `closeRest`, then exit with 0. */
export function exitWhenTold(server, closeRest, { exitWithParent }) {
  let leaving = false;
  const leave = () => {
    if (leaving) return;
    leaving = true;
    setTimeout(() => process.exit(0), GRACE_MS).unref();
    server.close(async () => {
      await closeRest().catch(() => {});
      process.exit(0);
    });
    server.closeIdleConnections();
  };
  process.on("SIGTERM", leave);
  process.on("SIGINT", leave);
  if (exitWithParent) process.stdin.on("end", leave).on("error", leave).resume();
}

/** Whatever escapes every handler is one line in the log, and the server goes on: one bad request must not end all others. */
export function surviveStrayErrors() {
  const report = (error) => logError("an error escaped its request", error);
  process.on("uncaughtException", report);
  process.on("unhandledRejection", report);
}

export function logError(event, error) {
  process.stderr.write(`${JSON.stringify({ level: "error", event, code: error?.code, message: String(error?.message ?? error) })}\n`);
}

/** lite writes each failed query to the console with its stack; one line each is enough. */
export function quietConsole() {
  console.error = (...given) => {
    const error = given.find((value) => value instanceof Error);
    logError(given.filter((value) => typeof value === "string").join(" ") || "lite", error ?? given.at(-1));
  };
  console.warn = () => {};
}
