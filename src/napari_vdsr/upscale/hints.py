"""What the widget proposes in a line with a button, until that is answered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from psygnal import Signal

from napari_vdsr.layers import image_layers
from napari_vdsr.layers.reader import lacks_place, open_again
from napari_vdsr.upscale import feasibility
from napari_vdsr.upscale.choices import Choices
from napari_vdsr.upscale.condition_finder import ConditionFinder
from napari_vdsr.upscale.form import Face
from napari_vdsr.upscale.preferences import preference, remember

GRAY = "These are gray images of 16 bit or more, as microscopes give them."


@dataclass(frozen=True)
class Hint:
    """A sentence, a button, and what that does; the answer holds for everything with the same key."""

    key: Hashable
    words: str
    button: str
    action: Callable[[], Any]


class Hints:
    """The line of the widget that proposes something."""

    model_wanted = Signal(str)  # a network that was proposed is to be used

    def __init__(self, face: Face, choices: Choices, condition_finder: ConditionFinder) -> None:
        self._face, self._choices, self._condition_finder = face, choices, condition_finder
        self._answered: set[Hashable] = set()
        self._hint: Hint | None = None
        face.hint_button.clicked.connect(lambda: self.answer(taken=True))
        face.no_hint_button.clicked.connect(lambda: self.answer(taken=False))

    def show(self) -> None:
        """Propose what comes first."""
        self._hint = next((hint for hint in self._list() if hint.key not in self._answered), None)
        self._face.hint_box.setVisible(self._hint is not None)
        if self._hint is not None:
            self._face.hint.setText(self._hint.words)
            self._face.hint_button.setText(self._hint.button)

    def answer(self, *, taken: bool) -> None:
        """Do what is proposed or not, and do not ask again."""
        hint, self._hint = self._hint, None
        if hint is not None:
            self._answered.add(hint.key)
            if hint.key == GRAY:
                remember(proposed=True)
            if taken:
                hint.action()
            self.show()

    def _list(self) -> Iterator[Hint]:
        from vdsr_core import model_names

        model, layers = self._choices.form.model.currentData(), self._choices.layers
        for layer in layers:
            if lacks_place(layer):
                words = f"“{layer.name}” was opened without the pixel size and colours that its file holds."
                again = partial(open_again, self._choices.viewer, layer)
                yield Hint(("opened", layer.source.path), words, "Open it with them", again)
        yield from self._channels()
        condition = self._condition_finder.condition
        if condition.misfit and condition.fitting:
            yield self._model("misfit", condition.misfit, condition.fitting)
        if not preference("proposed") and (better := feasibility.propose(layers, model, model_names())):
            yield self._model(GRAY, GRAY, better)

    def _channels(self) -> Iterator[Hint]:
        box = self._choices.form.channels
        layer = next((layer for layer in self._choices.layers if layer.ndim > 2 and not layer.rgb), None)
        axis = None if layer is None or box.value is not None else image_layers.likely_channels(layer)
        if layer is not None and axis is not None:
            planes = image_layers.finest(layer).shape[axis]
            words = f"Are the {planes} planes of “{layer.name}” channels? Then each gets its own range of intensities."
            yield Hint(("channels", layer.name), words, "They are channels", partial(setattr, box, "value", axis))

    def _model(self, key: str, words: str, name: str) -> Hint:
        return Hint(key, words, f"Use the model “{name}”", lambda: self.model_wanted.emit(name))
