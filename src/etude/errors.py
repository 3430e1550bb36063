"""The one exception that users meet: its message is a single line that says what, where and what to do."""


class EtudeError(ValueError):
    """Something asked for cannot be done. Every error of this package that a user can cause is one."""
