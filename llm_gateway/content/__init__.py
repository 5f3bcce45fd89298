"""What may be said: rules that deny, rewrite or observe what goes to a provider and what comes back."""
