// Access tokens carry the claims that hosted Supabase always has.
//
// lite 0.10.0 signs sub, aud, role, email, session_id, iat and exp only. The tokens are signed anew where lite makes them, so
// every way to a session (password, refresh, OTP, mailed link) is covered; lite's own checks accept the new ones.
import { decodeJwt, SignJWT } from "jose";
import { sql } from "kysely";

/** lite's middleware: the request's Auth service then issues complete tokens. */
export function completeAccessTokens({ publicUrl, jwtSecret }) {
  const secret = new TextEncoder().encode(jwtSecret);
  const issuer = `${publicUrl}/auth/v1`;
  return async (context, next) => {
    const service = context.get("authService");
    if (service) {
      wrap(service, "createSessionForUser", async (session, repository, [, , , options]) => {
        const claims = decodeJwt(session.access_token);
        const method = options?.authenticationMethod ?? "password";
        await sql`
          insert into auth.mfa_amr_claims (session_id, authentication_method) values (${claims.session_id}, ${method})
        `.execute(repository.db);
        return complete(session, claims, repository);
      });
      wrap(service, "createRefreshResponse", (session, repository) =>
        complete(session, decodeJwt(session.access_token), repository),
      );
    }
    await next();
  };

  async function complete(session, claims, repository) {
    const { rows: methods } = await sql`
      select authentication_method as method, extract(epoch from created_at)::integer as timestamp
      from auth.mfa_amr_claims where session_id = ${claims.session_id}
    `.execute(repository.db);
    const { user } = session;
    const token = await new SignJWT({
      ...claims,
      iss: issuer,
      email: user.email ?? "",
      phone: user.phone ?? "",
      app_metadata: user.app_metadata ?? {},
      user_metadata: user.user_metadata ?? {},
      aal: "aal1",
      amr: methods.map(({ method, timestamp }) => ({ method, timestamp })),
      is_anonymous: user.is_anonymous ?? false,
    })
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .sign(secret);
    session.access_token = token; // the object also carries hidden fields that lite reads: keep it
    return session;
  }
}

function wrap(service, method, after) {
  const original = service[method];
  if (typeof original !== "function") throw new Error(`@supabase/lite no longer has AuthService.${method}`);
  service[method] = async function wrapped(...given) {
    return after(await original.apply(this, given), this.repo, given); // this.repo: inside lite's transaction, if there is one
  };
}
