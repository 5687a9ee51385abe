"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """Bad input: one sentence that names the file or flag, what is wrong with it, and what to do.

    The launchers print it without a traceback and leave with exit code 2.
    """


class Diverged(UserError):
    """A training that no longer learns, at `step`: something is not finite, or validation stays at chance."""

    def __init__(self, step: int, what: str, advice: str):
        super().__init__(f"training diverged at step {step} ({what}){advice}")
        self.step, self.what = step, what
