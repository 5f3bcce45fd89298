"""models.toml, read and checked: which public model names exist, and who answers for them at what price."""


class CatalogInvalid(ValueError):
    """models.toml cannot be used; `problems` names everything that is wrong with it, at once."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("models.toml cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems))
