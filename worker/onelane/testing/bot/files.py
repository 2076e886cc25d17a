"""Files that people under test send."""

from concurrent.futures import Future

from onelane.errors import FileError
from onelane.model import Attachment, File, Upload

FIRST_ID = 900_000_000_000_000


class Files:
    """Their bytes, by id and by address: providers keep the one or the other."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}

    def keep(self, file: Upload) -> Attachment:
        """Keep a file, and describe it as a provider would."""
        number = FIRST_ID + len(self._files)
        described = file.described().model_copy(
            update={"file": None, "id": str(number), "url": f"https://files.example/{number}"}
        )
        for name in (described.id, described.url):
            self._files[str(name)] = File(content=file.data, content_type=file.content_type)
        return described

    def fetch(self, _channel: str, attachment: Attachment) -> Future[File]:
        """Fetch the bytes of an attachment; one that nobody sent here is a FileError of the future."""
        fetched: Future[File] = Future()
        found = next((self._files[name] for name in (attachment.id, attachment.url) if name in self._files), None)
        if found is not None:
            fetched.set_result(found)
        else:
            fetched.set_exception(FileError(f"{attachment.kind}: nobody sent it: give alice.sends an Upload"))
        return fetched
