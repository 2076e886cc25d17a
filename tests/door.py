"""An operator for tests: how one logs in without a browser, and what one looks at."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from onelane.bootstrap import Services
from onelane_web import create_app

PASSWORD = "correct horse \u00fcber <b>staple</b>"
LOGIN = "/ops/login"
DATA = "/ops/rq/0/data"
CANARY = "a secret between alice and her bot"
REGISTRIES = ("queued", "failed", "started", "finished", "deferred", "scheduled", "canceled")


def web_of(services: Services, **changes: object) -> Flask:
    """Make the web with a door to which PASSWORD is the key."""
    settings = services.settings.model_copy(update={"ops_password": SecretStr(PASSWORD), **changes})
    return create_app(replace(services, settings=settings))


def try_to_log_in(
    client: FlaskClient, password: str = PASSWORD, *, user: str = "operator", address: str = "10.0.0.1"
) -> TestResponse:
    return client.post(LOGIN, data={"user": user, "password": password}, environ_overrides={"REMOTE_ADDR": address})


def operator_of(app: Flask, user: str = "operator", password: str = PASSWORD) -> FlaskClient:
    """Return a client that is logged in, and sends the login's token as rq-dashboard's script does."""
    client = app.test_client()
    assert try_to_log_in(client, password, user=user).status_code == 303
    token = client.get_cookie("_csrf_token", path="/ops")
    assert token is not None
    client.environ_base["HTTP_X_CSRFTOKEN"] = token.value
    return client


def jobs_of(operator: FlaskClient, queue: str, registry: str = "failed", page: str = "8/asc/1") -> Any:
    return read(operator, f"jobs/{queue}/{registry}/{page}")["jobs"]


def read(operator: FlaskClient, what: str) -> Any:
    """Read some of the dashboard's data."""
    return operator.get(f"{DATA}/{what}.json").json


def pages_of(queue: str, job_id: object) -> Iterator[str]:
    """Name every address under /ops/rq that can be looked at."""
    for tail in ("view/queues", "view/workers", "data/queues.json", "data/workers.json", f"view/job/{job_id}"):
        yield f"/ops/rq/0/{tail}"
    yield f"{DATA}/job/{job_id}.json"
    for registry in REGISTRIES:
        yield f"/ops/rq/0/view/jobs/{queue}/{registry}/8/dsc/1"
        yield f"{DATA}/jobs/{queue}/{registry}/8/asc/1.json"
