// Auth works as supabase_auth_admin, as on hosted: a trigger on auth.users that needs more than that role may do fails here too.
//
// lite 0.10.0 uses the superuser connection for Auth, so a trigger function without "security definer" passes locally and
// breaks every sign-up on hosted.

const POOL_SIZE = 5;

/** lite's middleware. `connect(options)` makes a Connection with these extra driver options. */
export function authAsItsOwnRole(connect) {
  const connection = connect({ max: POOL_SIZE, connection: { role: "supabase_auth_admin", search_path: "auth" } });
  const use = async (context, next) => {
    const service = context.get("authService");
    if (service) {
      const Repository = service.repo.constructor;
      service.repo = new Repository(connection.kysely, connection.dialect, (work) => connection.runInTransaction(work));
    }
    await next();
  };
  return { use, close: () => connection.driver.end({ timeout: 1 }) };
}
