"""Reading what a page sent: every field is of the right kind, or `BadRequest` says in one sentence what is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import D3POError
from ..picks import Mask, check_mask

Fields = Mapping[str, Any]
"""What a page sent, by name; nothing of it is checked yet."""
ID = re.compile(r"[0-9a-f]{32}")
GROUP = re.compile(r"[0-9]{6,12}-[0-9a-f]{8}")
MAX_MS = 1e9
"""Longer than any person looks at a picture, and far from what a number type cannot hold."""
MAX_TEXT = 200


class BadRequest(Exception):
    """A request that no page of ours sends, or one for what is not there (any more); `status` is of the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def body_of(data: bytes) -> Fields:
    """Return the JSON object in a request's body.

    Raises:
        BadRequest: it is something else.
    """
    try:
        body = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The request is not JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The request is not a JSON object.")
    return body


def _no_constant(name: str) -> object:
    raise ValueError(name)


def text(fields: Fields, name: str, usual: str | None = None, most: int = MAX_TEXT) -> str:
    """Return a short text without control characters; `usual` where it is left out."""
    value = fields.get(name, usual)
    if not isinstance(value, str) or len(value) > most:
        raise BadRequest(f"'{name}' must be a text of at most {most} characters.")
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise BadRequest(f"'{name}' holds characters that no text has.")
    return value


def an_id(fields: Fields, name: str, pattern: re.Pattern[str] = ID) -> str:
    """Return an id as this project makes them."""
    value = fields.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadRequest(f"'{name}' is not an id.")
    return value


def whole(fields: Fields, name: str, low: int, high: int, usual: int | None = None) -> int:
    """Return a whole number in a range, also of a text, as addresses carry it."""
    value = fields.get(name, usual)
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise BadRequest(f"'{name}' must be a whole number from {low} to {high}.")
    return value


def numbers(fields: Fields, name: str) -> tuple[int, ...]:
    """Return at most 8 different candidate numbers."""
    value = fields.get(name, [])
    if not isinstance(value, list) or len(value) > 8 or any(type(n) is not int or not 0 <= n < 8 for n in value):
        raise BadRequest(f"'{name}' must be a list of candidate numbers.")
    if len(set(value)) < len(value):
        raise BadRequest(f"'{name}' names a candidate twice.")
    return tuple(value)


def mask_rows(fields: Fields, name: str) -> Mask:
    """Return the rows of a mask, see d3po_core/picks.py; empty where nothing is painted."""
    value = fields.get(name)
    if not isinstance(value, list):
        raise BadRequest(f"'{name}' must be a list of numbers.")
    try:
        return check_mask(value)
    except D3POError as error:
        raise BadRequest(f"'{name}' is not a mask: {error.what}") from error


def number(fields: Fields, name: str, low: float, high: float) -> float | None:
    """Return a number in a range, or None where it is left out or null."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
        raise BadRequest(f"'{name}' must be a number from {low:g} to {high:g}.")
    return float(value)


def truth(fields: Fields, name: str) -> bool:
    """Return true or false."""
    value = fields.get(name)
    if type(value) is not bool:
        raise BadRequest(f"'{name}' must be true or false.")
    return value


def choice(fields: Fields, name: str, known: tuple[str, ...], usual: str | None = None) -> str:
    """Return one of the known words."""
    value = fields.get(name, usual)
    if value not in known or not isinstance(value, str):
        raise BadRequest(f"'{name}' must be one of {', '.join(known)}.")
    return value


def ids(fields: Fields, name: str, most: int = 64) -> tuple[str, ...]:
    """Return group ids."""
    value = fields.get(name, [])
    if not isinstance(value, list) or len(value) > most:
        raise BadRequest(f"'{name}' must be a list of at most {most} ids.")
    return tuple(an_id({name: each}, name, GROUP) for each in value)
