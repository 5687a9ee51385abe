"""The flags of commands that can be looked at, and the page that they open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from absl import flags

from ica_unet_jax.runtime import packages


def define() -> None:
    flags.DEFINE_boolean("view", False, "Open a page for browsers on this machine, which shows images, masks and figures as they come.")
    flags.DEFINE_integer("view_port", 8010, "Where the page is; 0: a free port.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("view_bind", "127.0.0.1", "Address of the page; by default this machine alone can reach it.")
    flags.DEFINE_string("token", "", "What a page or an HTTP request must show; made and printed where other machines can come in.")


@contextlib.contextmanager
def page() -> Iterator[Callable[..., None]]:
    """Opens the page if it was asked for, says where it is, and gives what shows something on it: a `session.Show`.

    Raises:
      UserError: a package is missing, or the address cannot be listened on.
    """
    given = flags.FLAGS
    if not given.view:
        yield lambda tally, answers, spacing: None
        return
    packages.require("--view", "scanner", ("starlette", "uvicorn", "websockets"))
    from ica_unet_jax.viewing.page import Page

    with Page(given.view_bind, given.view_port, given.token) as opened:
        print(f"view: {opened.address}", flush=True)
        yield opened.feed.show
