"""Every answer says that it is data: no browser takes it for a page, shows it within another, or keeps it."""

from http import HTTPStatus
from typing import cast

import pytest
from flask.testing import FlaskClient

from onelane.bootstrap import Services
from onelane_web import create_app
from onelane_web.headers import HEADERS
from onelane_web.serving.answer import unavailable
from tests.unit.test_webhook_answers import services


@pytest.fixture
def client() -> FlaskClient:
    made = services(metrics_token="a-token-of-the-metrics", ops_password="long enough for one")
    app = create_app(cast("Services", made))

    @app.get("/fails")
    def fail() -> str:
        raise RuntimeError

    return app.test_client()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", HTTPStatus.OK),
        ("POST", "/webhooks/demo", HTTPStatus.UNAUTHORIZED),
        ("PUT", "/webhooks/demo", HTTPStatus.METHOD_NOT_ALLOWED),
        ("GET", "/metrics", HTTPStatus.UNAUTHORIZED),
        ("GET", "/nowhere", HTTPStatus.NOT_FOUND),
        ("GET", "/fails", HTTPStatus.INTERNAL_SERVER_ERROR),
    ],
)
def test_an_answer_of_the_application_is_data(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_the_login_has_the_policy_of_a_page_and_is_kept_nowhere(client: FlaskClient) -> None:
    answer = client.get("/ops/login")
    assert "form-action 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_answer_without_the_application_is_data() -> None:
    head = bytes(unavailable("busy").data).partition(b"\r\n\r\n")[0].decode()
    assert dict(line.split(": ", 1) for line in head.split("\r\n")[1:]).items() >= HEADERS.items()
