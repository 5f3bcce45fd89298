// The schema is read once and again after each "notify pgrst" (which DDL sends by itself, see bootstrap.sql).
//
// lite 0.10.0 reads it once a process: a table made later is PGRST205 until a restart. Concurrent first requests each read it,
// and a read that fails counts as a database without tables.

/** Connection mixin. */
export function withSchemaCache(Base) {
  return class extends Base {
    #schema;

    async introspect(options = {}) {
      if (options.useCache !== true) return this.#read();
      const reading = (this.#schema ??= this.#read());
      try {
        return await reading;
      } catch (error) {
        if (this.#schema === reading) this.#schema = undefined;
        throw error;
      }
    }

    async clearSchemaCache() {
      this.#schema = undefined;
      return super.clearSchemaCache();
    }

    /** Afterwards a notification on channel pgrst, and each new connection of the listener, forgets the schema. */
    async followSchema() {
      const forget = () => void this.clearSchemaCache();
      await this.driver.listen("pgrst", forget, forget);
    }

    async #read() {
      await this.driver`select 1`; // an outage must surface as one: the read itself swallows it
      const schema = await super.introspect({ useCache: false });
      if (!schema.functions) throw new Error("the schema could not be read");
      return schema;
    }
  };
}
