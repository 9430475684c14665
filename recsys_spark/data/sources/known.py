"""What was taken from a source before, and which of what lies there now is new."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from recsys_spark.data.sources.bronze import one_slash
from recsys_spark.data.sources.files import SourceFile

# Between a content's hash and the number of its delivery, where it came back after another.
_TIMES = "#"
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Known:
    """What was taken from one source before.

    contents: file -> key of each content that was taken from there -> when that was delivered (epoch
    milliseconds). columns: column -> class of types. is_snapshot: what a day delivers is all there is, so a
    content that comes on another day is a delivery of that day.
    """

    contents: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    is_snapshot: bool = False

    def new(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Those of the files that are to be taken, by path: of equal contents one.

        A content is taken once, wherever it lies. Only where another was delivered after it to the same
        place, and it after that again, it is the latest delivery once more: it is taken under a key of its
        own, its hash and the number of its deliveries (`…#2`). So is one of a snapshot on another day (UTC).
        """
        taken = self._deliveries()
        chosen: dict[tuple[str, int], SourceFile] = {}
        for file in sorted(files, key=lambda file: file.path):
            before = taken.get(file.content_hash)
            one = (file.content_hash, file.modified_ms // _DAY_MS if self.is_snapshot else 0)
            if before is None:
                chosen.setdefault(one, file)
            elif self._is_back(file, before.values()):
                again = f"{file.content_hash}{_TIMES}{len(before) + 1}"
                chosen.setdefault(one, replace(file, content_hash=again))
            else:
                continue
            if self.is_snapshot:
                key = chosen[one].content_hash
                taken[file.content_hash] = {**(before or {}), key: chosen[one].modified_ms}
        return sorted(chosen.values(), key=lambda file: file.path)

    def _is_back(self, file: SourceFile, times: Collection[int]) -> bool:
        """Whether the content, which came at these times, is the latest of its place again, or of its day."""
        if self.is_snapshot and file.modified_ms // _DAY_MS not in {at // _DAY_MS for at in times}:
            return True
        return max(times) <= self._latest_other(file) < file.modified_ms

    def _deliveries(self) -> dict[str, dict[str, int]]:
        """content hash -> its keys -> when it was delivered under each."""
        deliveries: dict[str, dict[str, int]] = {}
        for keys in self.contents.values():
            for key, modified_ms in keys.items():
                times = deliveries.setdefault(content_of(key), {})
                times[key] = max(modified_ms, times.get(key, modified_ms))
        return deliveries

    def _latest_other(self, file: SourceFile) -> int:
        """When another content was last delivered to the file's place; below any time where none was."""
        keys = self.contents.get(one_slash(file.uri), {})
        return max((at for key, at in keys.items() if content_of(key) != file.content_hash), default=-1)


def content_of(key: str) -> str:
    """The content's hash, whichever of its deliveries the key names."""
    return key.split(_TIMES, maxsplit=1)[0]


def came_back(file: SourceFile) -> bool:
    """Whether its content was delivered before, and another since."""
    return _TIMES in file.content_hash
