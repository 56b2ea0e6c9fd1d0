"""FastAPI with fastcast embedded: an HTTP request publishes, and WebSocket clients hear it.

Run it with ``python examples/fastapi_app/app.py``. FastAPI is on port 8080 (HOST and PORT say otherwise), the
clients are on port 8000 (FASTCAST_HOST and FASTCAST_PORT): ``ws://127.0.0.1:8000/orders/ada`` hears of Ada's
orders, and fastcast's own page at http://127.0.0.1:8000/#/orders/ada shows them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import fastcast

server = fastcast.Server(fastcast.Config.load({}, os.environ), relay="off")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with server:
        print(server.describe(), flush=True)
        yield


app = FastAPI(title="Orders", lifespan=lifespan)


class Order(BaseModel):
    customer: str = Field(pattern="^[a-z]{1,32}$")
    item: str
    pieces: int = Field(gt=0)


@app.post("/orders", status_code=201)
async def take(order: Order) -> dict[str, int]:
    """Tells the customer's browsers; ``heard`` is how many there are."""
    try:
        heard = server.publish(f"/orders/{order.customer}", order.model_dump_json())
    except fastcast.OverloadError as error:
        raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
    return {"heard": heard}


@app.get("/online")
async def online() -> dict[str, int]:
    """How many clients each channel has."""
    return server.channels()


if __name__ == "__main__":
    uvicorn.run(app, host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")))
