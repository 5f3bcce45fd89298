import { PostgresConnection } from "@supabase/lite/postgres";

export class Connection extends PostgresConnection {
  rlsState = "active";
  async ensureRlsContext() {
    return true;
  }
}
