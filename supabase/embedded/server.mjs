// Thin first version: see git history.
import { createServer } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { App, setExperimental } from "@supabase/lite";
import { bootstrap } from "./bootstrap.mjs";
import { ConfigurationInvalid, readConfiguration } from "./configuration.mjs";
import { Connection } from "./patches/connection.mjs";

async function serve(configuration) {
  setExperimental("storage", true);
  await bootstrap(configuration.databaseUrl);
  const connection = new Connection({ url: configuration.databaseUrl, translation: { schemas: { defaultSchema: configuration.project.api.schemas[0] } } });
  const app = new App({
    connection,
    ...configuration.project,
    auth: {
      ...configuration.project.auth,
      jwt_secret: configuration.jwtSecret,
      publishable_key: configuration.publishableKey,
      secret_key: configuration.secretKey,
    },
    studio: { enabled: false },
    options: { server: { admin: false, disableStudio: true } },
  });
  await app.init();
  const listener = getRequestListener((request) =>
    new URL(request.url).pathname === "/health" ? Response.json({ status: "ok" }) : app.fetch(request),
  );
  const server = createServer(listener);
  server.listen(configuration.port, configuration.host, () => {
    console.log(JSON.stringify({ event: "ready", url: configuration.publicUrl }));
  });
  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.once(signal, () => process.exit(0));
  }
}

const command = process.argv[2];
try {
  const configuration = readConfiguration(process.env, command);
  if (command === "bootstrap") await bootstrap(configuration.databaseUrl);
  else await serve(configuration);
} catch (error) {
  if (!(error instanceof ConfigurationInvalid)) throw error;
  console.error(error.message);
  process.exit(2);
}
