"""A file on its way to Slack: an address is asked for, gets the bytes, and the file is said to be complete."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from onelane.channels.sending import Request, Uploading, fields_of, first
from onelane.channels.slack.codes import meaning_of
from onelane.channels.verdicts import TOO_MANY, Outcome, Response, Verdict, Word, too_many, unknown
from onelane.model import Attachment, AttachmentKind

HOST: Final = "slack.com"
NAME: Final = "file"
NO_RIGHT: Final = "missing_scope"
"""The app may upload nothing. It may write: so this refuses the reply, and not the channel."""


def uploaded(described: Attachment, data: bytes, base_url: str, headers: Mapping[str, str]) -> Uploading:
    """Upload a file that nobody sees yet. An image is shown by its id, any other file is a link to it."""
    name = described.name or NAME
    asked = {"filename": name, "length": str(len(data))}
    response = yield Request.form(
        "files.getUploadURLExternal", f"{base_url}/files.getUploadURLExternal", asked, headers
    )
    given = _content(response)
    address, file_id = given.get("upload_url"), given.get("file_id")
    if not (isinstance(address, str) and isinstance(file_id, str) and _is_slacks(address, base_url)):
        return _refusal(response)
    response = yield Request("files.upload", "POST", address, {"Content-Type": "application/octet-stream"}, data)
    if not response.is_success:
        return unknown(response.status)
    complete = {"files": [{"id": file_id, "title": name}]}
    response = yield Request.json(
        "files.completeUploadExternal", f"{base_url}/files.completeUploadExternal", complete, headers
    )
    file = first(_content(response).get("files"))
    if described.kind is AttachmentKind.IMAGE and file:
        return described.model_copy(update={"id": file_id, "file": None})
    if isinstance(link := file.get("permalink"), str):
        return described.model_copy(update={"url": link, "file": None})
    return _refusal(response)


def _content(response: Response) -> dict[str, Any]:
    content = response.content()
    return content if response.is_success and content.get("ok") is True else {}


def _refusal(response: Response) -> Verdict:
    """Judge an answer that has not what was asked for."""
    if response.status == TOO_MANY:
        return too_many(response)
    error = fields_of(response.content()).get("error")
    if error == NO_RIGHT:
        return Verdict(Outcome.NEVER, Word.DENIED, NO_RIGHT)
    meaning = meaning_of(error) if isinstance(error, str) else None
    return meaning.verdict(error, response.retry_after_s()) if meaning else unknown(error)


def _is_slacks(address: str, base_url: str) -> bool:
    """Whether bytes may go there: to Slack's own hosts over https, or where the settings say that Slack is."""
    try:
        asked, own = urlsplit(address), urlsplit(base_url)
    except ValueError:
        return False
    host = asked.hostname or ""
    return asked[:2] == own[:2] or (asked.scheme == "https" and (host == HOST or host.endswith(f".{HOST}")))
