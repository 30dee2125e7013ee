"""The gallery's side of the conversation with its page: host-free, so that every host shows the same thing.

A host gives `handle` the requests that it gets and sends back what it answers; `web/` holds the page.
"""

from __future__ import annotations

from .actions import Actions
from .requests import Request, Response, handle

__all__ = ["Actions", "Request", "Response", "handle"]
