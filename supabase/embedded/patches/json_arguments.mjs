// What a client sends for a json or jsonb column or argument is that JSON value, also when it is a string or a number; and a
// bigint or numeric sent as text keeps all its digits.
//
// lite 0.10.0 reads text for such columns as JSON or as a double first, so the JSON string "5" becomes the number 5 and
// "9007199254740993" ends in 2. Values it does not know the class of pass it unchanged: they are wrapped here, where the
// column's type is known, and value_types.mjs writes them out.
import { ExactNumber } from "./value_types.mjs";

const WRITES = new Set(["insert", "update", "upsert", "put"]);

class JsonValue {
  constructor(value) {
    this.value = value;
  }
  toJSON() {
    return this.value;
  }
}

/** Connection mixin. */
export function withJsonArguments(Base) {
  return class extends Base {
    async onPostgrestAST(ast, vars) {
      const tree = await super.onPostgrestAST(ast, vars);
      if (tree.schema === "storage") return tree; // lite's own Storage, not a client
      const schema = await this.introspect({ useCache: true });
      if (tree.type === "rpc" && tree.httpMethod !== "GET") return { ...tree, args: wrapArguments(tree, schema) };
      if (WRITES.has(tree.type) && tree.values) return { ...tree, values: wrapColumns(tree, schema) };
      return tree;
    }
  };
}

function wrapArguments(tree, schema) {
  const { args } = tree;
  if (!args || Array.isArray(args) || typeof args !== "object") return args;
  const names = Object.keys(args);
  const inSchema = tree.schema ?? schema.default_schema;
  const candidates = schema.functions.filter(
    (candidate) =>
      candidate.schema === inSchema &&
      candidate.name === tree.function &&
      names.every((given) => candidate.arg_names.includes(given)),
  );
  const [first, ...others] = candidates.map((candidate) => new Map(candidate.arg_names.map((name, i) => [name, candidate.arg_types[i]])));
  if (!first) return args;
  const typeOf = (name) => (others.every((types) => types.get(name) === first.get(name)) ? first.get(name) : undefined);
  return Object.fromEntries(names.map((name) => [name, wrap(args[name], typeOf(name))]));
}

function wrapColumns(tree, schema) {
  const types = new Map(
    schema.columns
      .filter((column) => column.table === tree.from && column.schema === tree.schema)
      .map((column) => [column.name, column.type]),
  );
  const wrapRow = (row) =>
    row && typeof row === "object" && !Array.isArray(row)
      ? Object.fromEntries(Object.entries(row).map(([name, value]) => [name, wrap(value, types.get(name))]))
      : row;
  return Array.isArray(tree.values) ? tree.values.map(wrapRow) : wrapRow(tree.values);
}

function wrap(value, type) {
  if (value === null || value === undefined) return value;
  if (type === "json" || type === "jsonb") return new JsonValue(value);
  if ((type === "bigint" || type === "bigserial" || type === "numeric") && typeof value === "string") return new ExactNumber(value);
  return value;
}
