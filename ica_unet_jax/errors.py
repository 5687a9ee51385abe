"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Bad input: one sentence that names the file or flag, what is wrong with it, and what to do.

    The launchers print it without a traceback and leave with exit code 2.
    """
