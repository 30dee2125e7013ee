"""Where a request comes from, by the headers that browsers send; all names are in lower case."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def from_another_site(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from another site."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # the browser compared the addresses that it knows, which a proxy may have changed for us
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and _host_of(origin) != headers.get("host")


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; None if it is not one."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def follows_a_link(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether somebody opens an address, perhaps from another site, rather than a page of it using it."""
    return method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"


def local_hosts(port: int) -> frozenset[str]:
    """Return what the host header of a request to this computer says, for a server on a port."""
    return frozenset(f"{host}:{port}" for host in LOCAL)


def from_own_page(method: str, path: str, headers: Mapping[str, str], hosts: Collection[str]) -> bool:
    """Return whether a request comes from a page of this computer's, or opens that page.

    Requests that name another host or port are refused: a foreign site could have its own name point to this computer.
    So are requests that a browser says come from another site or port, other than following a link to the page.

    Args:
        method, path: of the request.
        headers: of the request.
        hosts: from `local_hosts`.
    """
    if headers.get("host") not in hosts:
        return False
    return (path == "/" and follows_a_link(method, headers)) or not from_another_site(headers)


def cookie(headers: Mapping[str, str], name: str) -> str:
    """Return a cookie's value; empty if there is none."""
    for part in headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""
