// A sign-up happens whole or not at all, and a race for one address ends in "already registered".
//
// lite 0.10.0 writes the user, the identity and the session one by one, outside of a transaction: a failure half-way leaves a
// user who can never sign up again, and the loser of a race gets 500.

/** lite's middleware. */
export async function atomicSignUp(context, next) {
  const service = context.get("authService");
  if (service) {
    const signUp = service.signUp.bind(service);
    service.signUp = async (email, password, data) => {
      const repository = service.repo;
      try {
        return await repository.transaction(async (inTransaction) => {
          service.repo = inTransaction;
          return signUp(email, password, data);
        });
      } catch (error) {
        service.repo = repository;
        if (isTaken(error)) return await signUp(email, password, data); // now finds the winner and answers as for any repeat
        throw error;
      } finally {
        service.repo = repository;
      }
    };
  }
  await next();
}

function isTaken(error) {
  return error?.code === "23505" && error.constraint_name === "users_email_partial_key";
}
