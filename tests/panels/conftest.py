from __future__ import annotations

from tests.garden_taste import fewer_pictures, host, models, run

__all__ = ["fewer_pictures", "host", "models", "run"]
