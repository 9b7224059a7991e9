"""The unlearning methods by name: one file a method, one line here."""

METHODS: dict[str, type] = {}
