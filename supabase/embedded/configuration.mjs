// What the server was told, by environment variables and by supabase/config.toml.
//
// Only the settings that @supabase/lite honours are taken over from config.toml: the file is written for the Supabase CLI
// and for hosted projects, and lite refuses keys it does not know.
import { readFileSync } from "node:fs";
import path from "node:path";
import { parse } from "smol-toml";

const REQUIRED = ["SUPABASE_DB_URL"];
const REQUIRED_TO_SERVE = [
  "SUPABASE_PORT",
  "SUPABASE_JWT_SECRET",
  "SUPABASE_PUBLISHABLE_KEY",
  "SUPABASE_SECRET_KEY",
  "SUPABASE_STORAGE_DIR",
  "SUPABASE_MAILBOX_FILE",
];
const MINIMUM_SECRET_LENGTH = 32;

/** A sentence for the person who started us; printed without a stack. */
export class ConfigurationInvalid extends Error {}

/** Answers the settings of `command` ("serve" or "bootstrap"), or throws ConfigurationInvalid naming everything that is wrong at once. */
export function readConfiguration(environment, command) {
  const problems = [];
  if (environment.BUTTRESS_ENV === "production") {
    problems.push("BUTTRESS_ENV is production: the embedded Supabase is for development and tests and never runs there");
  }
  const required = command === "serve" ? [...REQUIRED, ...REQUIRED_TO_SERVE] : REQUIRED;
  for (const name of required.filter((name) => !environment[name])) problems.push(`${name} is missing`);
  if (command === "serve") problems.push(...problemsOfSecrets(environment));
  if (problems.length > 0) throw new ConfigurationInvalid(problems.join("; "));

  const host = environment.SUPABASE_HOST || "127.0.0.1";
  const port = Number(environment.SUPABASE_PORT || 0);
  return {
    databaseUrl: environment.SUPABASE_DB_URL,
    host,
    port,
    publicUrl: (environment.SUPABASE_PUBLIC_URL || `http://${host}:${port}`).replace(/\/+$/, ""),
    jwtSecret: environment.SUPABASE_JWT_SECRET,
    publishableKey: environment.SUPABASE_PUBLISHABLE_KEY,
    secretKey: environment.SUPABASE_SECRET_KEY,
    storageDirectory: environment.SUPABASE_STORAGE_DIR,
    mailboxFile: environment.SUPABASE_MAILBOX_FILE,
    exitWithParent: environment.SUPABASE_EXIT_WITH_PARENT === "1",
    project: readProject(environment.SUPABASE_CONFIG, environment.SUPABASE_AUTOCONFIRM),
  };
}

function problemsOfSecrets(environment) {
  const problems = [];
  const secret = environment.SUPABASE_JWT_SECRET;
  if (secret && secret.length < MINIMUM_SECRET_LENGTH) {
    problems.push(`SUPABASE_JWT_SECRET must have at least ${MINIMUM_SECRET_LENGTH} characters`);
  }
  const port = environment.SUPABASE_PORT;
  if (port && !/^\d{1,5}$/.test(port)) problems.push("SUPABASE_PORT must be a port number");
  for (const [name, prefix] of [["SUPABASE_PUBLISHABLE_KEY", "sb_publishable_"], ["SUPABASE_SECRET_KEY", "sb_secret_"]]) {
    if (environment[name] && !environment[name].startsWith(prefix)) problems.push(`${name} must start with ${prefix}`);
  }
  return problems;
}

/** The part of config.toml that lite understands, in lite's own shape. `autoconfirm` "1" or "0" overrides the file. */
function readProject(file, autoconfirm) {
  const toml = file ? parseFile(file) : {};
  const api = toml.api ?? {};
  const auth = toml.auth ?? {};
  const email = pick(auth.email, [
    "enable_signup", "enable_confirmations", "double_confirm_changes", "secure_password_change", "otp_length", "otp_expiry",
  ]);
  if (autoconfirm) email.enable_confirmations = autoconfirm !== "1";
  return {
    api: { schemas: ["api"], ...pick(api, ["schemas", "max_rows"]) },
    searchPath: api.extra_search_path ?? ["public", "extensions"],
    auth: {
      ...pick(auth, [
        "site_url", "additional_redirect_urls", "jwt_expiry", "enable_signup", "minimum_password_length", "password_requirements",
        "enable_refresh_token_rotation", "refresh_token_reuse_interval",
      ]),
      ...(auth.sessions ? { sessions: pick(auth.sessions, ["timebox", "inactivity_timeout"]) } : {}),
      email,
    },
    templates: readTemplates(auth.email?.template, file),
    storage: {
      ...pick(toml.storage, ["file_size_limit"]),
      buckets: mapValues(toml.storage?.buckets ?? {}, (bucket) => pick(bucket, ["public", "file_size_limit", "allowed_mime_types"])),
    },
  };
}

function parseFile(file) {
  try {
    return parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new ConfigurationInvalid(`SUPABASE_CONFIG: ${file} cannot be read (${error.message.split("\n")[0]})`);
  }
}

/** config.toml gives template paths relative to the project's root, the folder above supabase/. */
function readTemplates(templates, file) {
  if (!templates) return {};
  const root = path.resolve(path.dirname(file), "..");
  return mapValues(templates, (template) => ({
    ...pick(template, ["subject"]),
    ...(template.content_path ? { content_path: path.resolve(root, template.content_path) } : {}),
  }));
}

function pick(source, names) {
  return Object.fromEntries(names.filter((name) => source?.[name] !== undefined).map((name) => [name, source[name]]));
}

function mapValues(source, transform) {
  return Object.fromEntries(Object.entries(source).map(([key, value]) => [key, transform(value)]));
}
