// What a client sends for a json or jsonb column or argument is that JSON value, also when it is a string or a number.
//
// lite 0.10.0 cannot tell the JSON string "5" from the number 5 once both are parameters: each value is written out as JSON
// text here, where the column's type is known, and value_types.mjs lets text pass.

const WRITES = new Set(["insert", "update", "upsert", "put"]);

/** Connection mixin. */
export function withJsonArguments(Base) {
  return class extends Base {
    async onPostgrestAST(ast, vars) {
      const tree = await super.onPostgrestAST(ast, vars);
      if (currentlyForeign(tree)) return tree;
      const schema = await this.introspect({ useCache: true });
      if (tree.type === "rpc") return { ...tree, args: writeArguments(tree, schema) };
      if (WRITES.has(tree.type) && tree.values) return { ...tree, values: writeColumns(tree, schema) };
      return tree;
    }
  };
}

/** lite's own storage code passes trees for the storage schema; its values are no client's. */
function currentlyForeign(tree) {
  return tree.schema === "storage" || tree.schema === "auth";
}

function writeArguments(tree, schema) {
  const { args } = tree;
  if (!args || Array.isArray(args) || typeof args !== "object") return args;
  const name = tree.function;
  const inSchema = tree.schema ?? schema.default_schema;
  const names = Object.keys(args);
  const candidates = (schema.functions ?? []).filter(
    (candidate) =>
      candidate.schema === inSchema && candidate.name === name && names.every((given) => candidate.arg_names.includes(given)),
  );
  if (candidates.length === 0) return args;
  const isJsonInAll = (given) =>
    candidates.every((candidate) => isJson(candidate.arg_types[candidate.arg_names.indexOf(given)]));
  return Object.fromEntries(names.map((given) => [given, isJsonInAll(given) ? writeValue(args[given], tree) : args[given]]));
}

function writeColumns(tree, schema) {
  const jsonColumns = new Set(
    schema.columns
      .filter((column) => column.table === tree.from && column.schema === tree.schema && isJson(column.type))
      .map((column) => column.name),
  );
  if (jsonColumns.size === 0) return tree.values;
  const writeRow = (row) =>
    row && typeof row === "object" && !Array.isArray(row)
      ? Object.fromEntries(Object.entries(row).map(([name, value]) => [name, jsonColumns.has(name) ? writeValue(value, {}) : value]))
      : row;
  return Array.isArray(tree.values) ? tree.values.map(writeRow) : writeRow(tree.values);
}

/** A GET's arguments come from the query string and are JSON text already. */
function writeValue(value, { httpMethod }) {
  if (value === null || value === undefined || httpMethod === "GET") return value;
  return JSON.stringify(value);
}

function isJson(type) {
  return type === "json" || type === "jsonb";
}
