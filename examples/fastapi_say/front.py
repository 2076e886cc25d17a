"""A shop's service that tells customers about their orders."""

from fastapi import FastAPI, HTTPException
from onelane import StoreUnavailable, Unsendable, say
from pydantic import BaseModel

app = FastAPI()


class Shipped(BaseModel):
    """An order that is on its way to a customer."""

    order: str
    customer: str


@app.post("/say/{channel}")
def shipped(channel: str, news: Shipped) -> dict[str, bool]:
    """Say it, once for each order."""
    try:
        said = say(news.customer, f"Order {news.order} is on its way.", channel=channel, key=f"shipped-{news.order}")
    except Unsendable as refused:
        raise HTTPException(409, str(refused)) from refused
    except StoreUnavailable as away:
        raise HTTPException(503, "try again", {"Retry-After": "5"}) from away
    return {"was_said_before": said.duplicate}
