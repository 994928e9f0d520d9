"""`python -m script_service`, in the folder examples: the service on port 8000, for two tenants.

Their keys are in the environment: ACME_KEY and GLOBEX_KEY.
"""

from __future__ import annotations

import os
import sys

import uvicorn

import plugwasm

from . import Quota, ScriptService, Tenant, make_app

PRICES = {"tea": 2.5, "cup": 4.0}


@plugwasm.host_fn(register=False)
def price_of(item: str) -> float:
    """A function that only one of the tenants gets. Its argument is like a request: check it."""
    return PRICES.get(item, 0.0)


def main() -> int:
    keys = os.environ.get("ACME_KEY"), os.environ.get("GLOBEX_KEY")
    if not all(keys) or keys[0] == keys[1]:
        print("set ACME_KEY and GLOBEX_KEY, to two different keys", file=sys.stderr)
        return 2
    service = ScriptService(
        [
            Tenant("acme", keys[0] or "", functions=[price_of], config={"currency": "EUR"}),
            Tenant("globex", keys[1] or "", quota=Quota(seconds_per_minute=2.0)),
        ]
    )
    uvicorn.run(
        make_app(service),
        port=int(os.environ.get("PORT", "8000")),
        limit_concurrency=200,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
