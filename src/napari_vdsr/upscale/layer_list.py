"""The list of layers with ticks: those of one file are a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QTreeWidget, QTreeWidgetItem, QTreeWidgetItemIterator

from napari_vdsr.layers.image_layers import group_of

ROLE = Qt.ItemDataRole.UserRole
ROW = 18  # pixels
ROWS = 5  # that are seen at once; of more, one scrolls
# napari's dark theme draws empty boxes in the colour of what lies under them.
BOXES = (
    f"QTreeView::item {{height: {ROW}px}}"
    "QTreeView::indicator:unchecked {border: 1px solid gray; border-radius: 2px; width: 11px; height: 11px}"
)


class LayerList(QTreeWidget):
    """Layers to tick, in the order in which they are offered."""

    ticks_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setIndentation(14)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # the end of a name tells how it was made
        self.setStyleSheet(BOXES)
        self.setToolTip("The images to upscale in one run. They stay as they are; the results are new layers.")
        self.itemChanged.connect(lambda *_: self.ticks_changed.emit())

    def offer(self, layers: Iterable[Image]) -> None:
        """List these layers, keeping the ticks."""
        ticked = self.ticked()
        groups: dict[Any, list[Image]] = {}
        for layer in layers:
            groups.setdefault(group_of(layer), []).append(layer)
        with QSignalBlocker(self):
            self.clear()
            for group in groups.values():
                above: Any = self
                if len(group) > 1:
                    above = self._add(self, f"{group[0].name}: {len(group)} channels")
                    above.setFlags(above.flags() | Qt.ItemFlag.ItemIsAutoTristate)
                for layer in group:
                    item = self._add(above, layer.name)
                    item.setData(0, ROLE, layer)
                    item.setCheckState(0, Qt.CheckState.Checked if layer in ticked else Qt.CheckState.Unchecked)
            self.expandAll()
        rows = min(ROWS, max(2, len(self._items())))
        self.setFixedHeight(rows * ROW + 2 * self.frameWidth())
        self._show_ticks()

    def tick(self, layers: Iterable[Image]) -> None:
        """Tick these layers, and no others."""
        layers = list(layers)
        with QSignalBlocker(self):
            for item in self._items():
                if (layer := item.data(0, ROLE)) is not None:
                    item.setCheckState(0, Qt.CheckState.Checked if layer in layers else Qt.CheckState.Unchecked)
        self._show_ticks()
        self.ticks_changed.emit()

    def _show_ticks(self) -> None:
        """Scroll to the first tick, with its group."""
        for item in self._items():
            if item.checkState(0) != Qt.CheckState.Unchecked:
                self.scrollToItem(item, self.ScrollHint.PositionAtTop)
                break

    def ticked(self) -> list[Image]:
        """The layers that are ticked."""
        return [item.data(0, ROLE) for item in self._items() if item.data(0, ROLE) is not None and _is_ticked(item)]

    def layers(self) -> list[Image]:
        """The layers that are offered."""
        return [item.data(0, ROLE) for item in self._items() if item.data(0, ROLE) is not None]

    @staticmethod
    def _add(above: Any, words: str) -> QTreeWidgetItem:
        item = QTreeWidgetItem(above, [words])
        item.setToolTip(0, words)
        item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
        item.setCheckState(0, Qt.CheckState.Unchecked)
        return item

    def _items(self) -> list[QTreeWidgetItem]:
        """All rows, groups and layers."""
        found, walk = [], QTreeWidgetItemIterator(self)
        while (item := walk.value()) is not None:
            found.append(item)
            walk += 1
        return found


def _is_ticked(item: QTreeWidgetItem) -> bool:
    return item.checkState(0) == Qt.CheckState.Checked
