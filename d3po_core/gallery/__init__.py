"""The gallery's server side, without any host's code, so that every host shows the same page.

A host passes the requests that it gets to `handle` and sends back the responses; `web/` holds the page, API.md says
what it asks for.

| file | content |
| --- | --- |
| requests.py | `handle`: which function answers which address, status codes, headers; `GalleryApp`: the same by ASGI |
| answers.py | the answers, a function for each address |
| access.py | where a request comes from, by its headers |
| guests.py | what invited people may ask and learn |
| serving.py | `ServingApp`: one run for its owner here, or for whoever has a link; the server that `d3po serve` runs |
| state.py | the JSON of a run, its rounds, groups and blind checks |
| fields.py | reading and checking of a request's fields |
| actions.py | `Actions`: what a host can do besides showing images; hosts override it |
"""

from __future__ import annotations

from .actions import Actions
from .requests import Request, Response, handle

__all__ = ["Actions", "Request", "Response", "handle"]
