"""Undo and redo: the drafts so far, and which of them is shown. The only state of the page that changes.

Rule: what comes after the draft that is shown is forgotten when that draft is changed. A revision never comes
twice, so that a window that shows an old one is told.
"""

from dataclasses import dataclass

from calib.page.draft import Draft

_MOST_STEPS = 500


@dataclass(frozen=True, slots=True)
class _Step:
    draft: Draft
    label: str


class History:
    """Starts with a draft that counts as saved."""

    def __init__(self, first: Draft) -> None:
        self._steps = [_Step(first, "")]
        self._at = 0
        self._saved: Draft | None = first
        self.revision = 1

    @property
    def draft(self) -> Draft:
        return self._steps[self._at].draft

    @property
    def saved(self) -> bool:
        return self.draft is self._saved

    @property
    def undo_label(self) -> str | None:
        """What undo would take back; None where there is nothing."""
        return self._steps[self._at].label if self._at else None

    @property
    def redo_label(self) -> str | None:
        return self._steps[self._at + 1].label if self._at + 1 < len(self._steps) else None

    def add(self, draft: Draft, label: str) -> None:
        """The draft after a change."""
        del self._steps[self._at + 1 :]
        self._steps.append(_Step(draft, label))
        del self._steps[: len(self._steps) - _MOST_STEPS]
        self._at = len(self._steps) - 1
        self.revision += 1

    def undo(self) -> bool:
        """Whether there was something to take back."""
        return self._go(-1)

    def redo(self) -> bool:
        return self._go(1)

    def mark_saved(self, draft: Draft) -> None:
        """This draft is what the files hold."""
        self._saved = draft
        self.revision += 1

    def mark_unsaved(self) -> None:
        """No draft is what the files hold."""
        self._saved = None

    def _go(self, by: int) -> bool:
        if not 0 <= self._at + by < len(self._steps):
            return False
        self._at += by
        self.revision += 1
        return True
