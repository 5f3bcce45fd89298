// E-mails go to a file, one JSON object a line: to, subject, html, text, type, token, token_hash, link, sent_at.
//
// lite 0.10.0 prints them to the console, and its links point at the web app (site_url) instead of the Auth server.
import { appendFile, readFile } from "node:fs/promises";
import { currentRequest } from "./request_context.mjs";

const SUBJECTS = {
  confirmation: "Confirm Your Signup",
  recovery: "Reset Your Password",
  magic_link: "Your Magic Link",
  email_change: "Confirm Email Change",
  reauthentication: "Confirm Reauthentication",
};
const VERIFY_TYPES = { confirmation: "signup", recovery: "recovery", magic_link: "magiclink", email_change: "email_change" };
const DEFAULT_TEMPLATE = '<p>Code: <b>{{ .Token }}</b></p>\n<p><a href="{{ .ConfirmationURL }}">Continue</a></p>\n';
const DEFAULT_TEXT = "Code: {{ .Token }}\n{{ .ConfirmationURL }}\n";

/** A Mailer in lite's sense (App._mailer). */
export class Mailbox {
  #file;
  #publicUrl;
  #siteUrl;
  #templates;

  constructor({ mailboxFile, publicUrl, project }) {
    this.#file = mailboxFile;
    this.#publicUrl = publicUrl;
    this.#siteUrl = project.auth.site_url ?? "";
    this.#templates = project.templates;
  }

  sendConfirmation = (to, hash, token, meta) => this.#send("confirmation", to, hash, token, meta);
  sendRecovery = (to, hash, token, meta) => this.#send("recovery", to, hash, token, meta);
  sendMagicLink = (to, hash, token, meta) => this.#send("magic_link", to, hash, token, meta);
  sendEmailChange = (to, hash, token, meta) => this.#send("email_change", to, hash, token, meta);
  sendReauthentication = (to, token, meta) => this.#send("reauthentication", to, meta?.tokenHash ?? "", token, meta);

  async #send(kind, to, hash, token, meta = {}) {
    const redirectTo = currentRequest()?.url.searchParams.get("redirect_to") ?? this.#siteUrl;
    const link = this.#link(VERIFY_TYPES[kind], hash, redirectTo);
    const values = {
      ConfirmationURL: link,
      Token: token,
      TokenHash: hash,
      SiteURL: this.#siteUrl,
      RedirectTo: redirectTo,
      Email: meta.currentEmail ?? to,
      NewEmail: meta.newEmail ?? "",
    };
    const template = this.#templates[kind];
    const html = template?.content_path ? await readFile(template.content_path, "utf8") : DEFAULT_TEMPLATE;
    const message = {
      to,
      subject: fill(template?.subject ?? SUBJECTS[kind], values),
      html: fill(html, mapValues(values, escapeHtml)),
      text: fill(DEFAULT_TEXT, values),
      type: kind,
      token,
      token_hash: hash,
      link,
      sent_at: new Date().toISOString(),
    };
    await appendFile(this.#file, `${JSON.stringify(message)}\n`, { mode: 0o600 });
  }

  #link(type, hash, redirectTo) {
    if (!type) return "";
    const query = new URLSearchParams({ token: hash, type, redirect_to: redirectTo });
    return `${this.#publicUrl}/auth/v1/verify?${query}`;
  }
}

/** Fills in Go's {{ .Name }} and leaves what it does not know. */
function fill(template, values) {
  return template.replace(/\{\{\s*\.(\w+)\s*\}\}/g, (whole, name) => values[name] ?? whole);
}

function escapeHtml(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return String(text).replace(/[&<>"']/g, (character) => entities[character]);
}

function mapValues(source, transform) {
  return Object.fromEntries(Object.entries(source).map(([key, value]) => [key, transform(value)]));
}
