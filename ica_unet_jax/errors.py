"""Errors that a user is meant to read. The commands print them without a traceback."""

from __future__ import annotations

import signal
from collections.abc import Sequence


class UserError(ValueError):
    """Bad input: one sentence that names the file or flag, what is wrong with it, and what to do.

    The launchers leave with exit code 2.
    """


class BadData(UserError):
    """Everything that is wrong with one case or several: `problems`, a sentence and a line each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)

    def __reduce__(self):
        return BadData, (self.problems,)  # as it is, from one process to another


class Diverged(UserError):
    """A training that no longer learns, at `step`: something is not finite, or validation stays at chance."""

    def __init__(self, step: int, what: str, advice: str):
        super().__init__(f"training diverged at step {step} ({what}){advice}")
        self.step, self.what = step, what


class Interrupted(KeyboardInterrupt):
    """A training that was asked to stop by a signal. The launchers leave with exit code 128 + `number`."""

    def __init__(self, number: int, text: str = ""):
        super().__init__(f"{signal.Signals(number).name}{text}")
        self.number = number
