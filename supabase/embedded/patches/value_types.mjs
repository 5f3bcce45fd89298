// Values leave as real PostgREST sends them.
//
// lite 0.10.0 sends timestamps in PostgreSQL's text form ("2026-11-21 03:24:09+00"), numerics as strings ("12.30"), and
// rounds bigints over 2^53; JSON parameters that are already text are encoded a second time, so a jsonb argument arrives as
// a JSON string.

/** A number whose digits must not pass through a double: printed exactly in JSON, compared as a number. */
export class ExactNumber {
  constructor(text) {
    this.text = text;
  }
  toJSON() {
    return JSON.rawJSON(this.text);
  }
  toString() {
    return this.text;
  }
  valueOf() {
    return Number(this.text);
  }
}

BigInt.prototype.toJSON = function toJSON() {
  return JSON.rawJSON(this.toString());
};

const passThrough = (value) => value;
const jsonText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** "2026-11-21 03:24:09.84+00" -> "2026-11-21T03:24:09.84+00:00", as PostgreSQL's own to_json writes it. */
export function isoTimestamp(text) {
  return text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00");
}

function exactNumber(text) {
  return /^-?\d/.test(text) ? new ExactNumber(text) : text; // NaN and Infinity are strings in JSON
}

/** For the driver's `types` option. */
export const valueTypes = {
  numeric: { to: 1700, from: [1700], serialize: String, parse: exactNumber },
  timestamp: { to: 1114, from: [1114], serialize: passThrough, parse: isoTimestamp },
  timestamptz: { to: 1184, from: [1184], serialize: passThrough, parse: isoTimestamp },
  json: { to: 114, from: [114], serialize: jsonText, parse: JSON.parse },
  jsonb: { to: 3802, from: [3802], serialize: jsonText, parse: JSON.parse },
};
