"""Files that people under test send."""

from onelane.errors import FileError
from onelane.model import Attachment, File, Upload

FIRST_ID = 900_000_000_000_000


class Files:
    """Their bytes, by id and by address: providers keep the one or the other."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}

    def keep(self, file: Upload) -> Attachment:
        """Keep a file, and describe it."""
        number = FIRST_ID + len(self._files)
        described = file.described().model_copy(
            update={"file": None, "id": str(number), "url": f"https://files.example/{number}"}
        )
        for name in (described.id, described.url):
            self._files[str(name)] = File(content=file.data, content_type=file.content_type)
        return described

    def found(self, attachment: Attachment) -> File:
        """Return the bytes of an attachment; raise FileError for one that nobody sent here."""
        for name in (attachment.id, attachment.url):
            if name in self._files:
                return self._files[name]
        raise FileError(f"{attachment.kind}: nobody sent it: give alice.sends an Upload")
