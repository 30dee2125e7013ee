"""What ends work before its end: an error that is meant for a person, and a person's wish to stop.

A front end says by `interruptible` how it learns that somebody wants to stop. Long work asks by `check_stop`: before
each evaluation of the network (`diffusion.denoiser.denoise`), and between the parts of other work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class D3POError(Exception):
    """Bad input or a spent resource, in words that a person can act on.

    Args:
        what: what was wrong, one clear sentence.
        do: one thing to do about it.
        safe: what was kept, where something of the user's was at stake ("Your 63 picks are saved.").
    """

    def __init__(self, what: str, do: str = "", safe: str = "") -> None:
        self.what, self.do, self.safe = what, do, safe
        super().__init__(" ".join(part for part in (what, safe, do) if part))


_checks: ContextVar[tuple[Callable[[], object], ...]] = ContextVar("d3po_checks", default=())
_unbroken: ContextVar[bool] = ContextVar("d3po_unbroken", default=False)


@contextmanager
def interruptible(check: Callable[[], object]) -> Iterator[None]:
    """Let work inside, in this thread, be stopped.

    Args:
        check: raises the front end's own exception if somebody wants to stop.
    """
    token = _checks.set((*_checks.get(), check))
    try:
        yield
    finally:
        _checks.reset(token)


def check_stop() -> None:
    """Raise what the front end raises if somebody wants to stop; do nothing where nobody can."""
    for check in _checks.get():
        check()


@contextmanager
def unbroken() -> Iterator[None]:
    """Do what is inside as a whole: a front end that could raise anywhere (Ctrl+C) waits for the next `check_stop`."""
    token = _unbroken.set(True)
    try:
        yield
    finally:
        _unbroken.reset(token)


def is_unbroken() -> bool:
    """Return whether an exception would cut something in two now, see `unbroken`."""
    return _unbroken.get()
