"""The keys of the Upscale widget, in napari's list of shortcuts, where they can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from napari.components import ViewerModel
from napari.utils.action_manager import action_manager

if TYPE_CHECKING:
    from napari_vdsr.upscale.widget import UpscaleWidget

_widgets: WeakKeyDictionary[Any, ReferenceType[UpscaleWidget]] = WeakKeyDictionary()


def run(viewer: ViewerModel) -> None:
    """Do what the Run button does."""
    for widget in _of(viewer):
        widget.start()


def cancel(viewer: ViewerModel) -> None:
    """Do what the Cancel button does."""
    for widget in _of(viewer):
        widget.queue.cancel()


def compare(viewer: ViewerModel) -> None:
    """Turn the comparison on or off."""
    for widget in _of(viewer):
        widget.compare.on.value = not widget.compare.on.value


def show_original(viewer: ViewerModel) -> Iterator[None]:
    """Show the sources in place of the results while the key is held down."""
    for widget in _of(viewer):
        widget.face.original_button.setChecked(True)
    yield
    for widget in _of(viewer):
        widget.face.original_button.setChecked(False)


ACTIONS: tuple[tuple[Callable[[ViewerModel], Any], str, str], ...] = (
    (run, "Ctrl-Enter", "Upscale: run"),
    (cancel, "Escape", "Upscale: cancel what is under way"),
    (compare, "Shift-C", "Upscale: compare on both sides of a line"),
    (show_original, "B", "Upscale: show the original while held down"),
)


def bind(viewer: Any, widget: UpscaleWidget) -> None:
    """Let the keys of a viewer work its newest widget."""
    _widgets[getattr(viewer, "__wrapped__", viewer)] = ref(widget)
    for action, shortcut, words in ACTIONS:
        name = f"napari-vdsr:{action.__name__}"
        if name not in action_manager._actions:
            action_manager.register_action(name, action, words, ViewerModel)
            if not action_manager._shortcuts.get(name):  # which the user may have changed
                action_manager.bind_shortcut(name, shortcut)


def _of(viewer: Any) -> list[UpscaleWidget]:
    """The widget that the keys of a viewer work, if there is one."""
    found = _widgets.get(getattr(viewer, "__wrapped__", viewer), lambda: None)()
    return [found] if found is not None and found.choices.following else []
