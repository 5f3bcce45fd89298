// A database error answers with its own code, message, details and hint, and the HTTP status PostgREST gives that code.
//
// lite 0.10.0 answers 500 {"code":"SUP"} for raise exception, check violations, timeouts and every SQLSTATE it does not know.
import { isDatabaseDown, rememberDatabaseDown } from "./database_outage.mjs";

// First match wins; the classes of https://docs.postgrest.org errors, "HTTP Status Codes".
const STATUS_OF_CODE = [
  [/^08/, 503], [/^09/, 500], [/^0[LP]/, 403], [/^28/, 403], [/^2D/, 500], [/^25006$/, 405], [/^25/, 500],
  [/^21000$/, 400], [/^22023$/, 400], [/^3[89B]/, 500], [/^40/, 500], [/^53400$/, 500], [/^53/, 503], [/^54/, 500],
  [/^57P01$/, 503], [/^5[578]/, 500], [/^F0/, 500], [/^HV/, 500], [/^P0001$/, 400], [/^P0/, 500],
  [/^42883$/, 404], [/^42P01$/, 404], [/^42P17$/, 500], [/^XX/, 500],
];
// lite's Storage asks for these by their code, and answers them rightly for PostgREST.
const LEFT_TO_LITE = /^(23503|23505|42501|PGRST|PT.*)$/;

/** Connection mixin. */
export function withPostgrestErrors(Base) {
  return class extends Base {
    normalizeDbError(error) {
      if (isDatabaseDown(error)) {
        rememberDatabaseDown();
        return answer(503, { code: "PGRST001", message: "Database client error. Retrying the connection." });
      }
      const original = super.normalizeDbError(error);
      const code = original?.code;
      if (typeof code !== "string" || !/^[0-9A-Z]{5}$/.test(code) || LEFT_TO_LITE.test(code)) return original;
      const { message, detail, hint } = original;
      return answer(statusOf(code), { code, message, details: detail ?? null, hint: hint ?? null });
    }
  };
}

function statusOf(code) {
  return STATUS_OF_CODE.find(([pattern]) => pattern.test(code))?.[1] ?? 400;
}

/** lite answers an error with code PGRST by the JSON in it, as PostgREST does for "raise sqlstate 'PGRST'". */
function answer(status, body) {
  return Object.assign(new Error(JSON.stringify(body)), { code: "PGRST", detail: JSON.stringify({ status, headers: {} }) });
}
