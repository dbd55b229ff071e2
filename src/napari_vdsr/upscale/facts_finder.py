"""What is known of the chosen network on the chosen device, found beside the viewer."""

from __future__ import annotations

import logging
from functools import partial

from psygnal import Signal

from napari_vdsr.background.job import Latest
from napari_vdsr.background.pytorch import Facts, examine
from napari_vdsr.forms import offer_devices
from napari_vdsr.models.box import FROM_FILE
from napari_vdsr.models.library import list_networks
from napari_vdsr.upscale import disk
from napari_vdsr.upscale.form import Form
from napari_vdsr.upscale.generators import LAZY_TILE
from napari_vdsr.upscale.preferences import remember
from napari_vdsr.words import sentence

LOG = logging.getLogger("napari_vdsr")
FAST = "fast"  # the network whose time is told beside a long one


class FactsFinder:
    """Loads the network that is chosen, finds the devices and measures the speed."""

    outdated = Signal()  # another network or device is chosen
    changed = Signal()  # there is more known

    def __init__(self, form: Form) -> None:
        self._form = form
        self._work = Latest(self._examined, self._ended)
        self._fast_work = Latest(self._found_fast, lambda _: None)
        self.facts: Facts | None = None  # None until they are found
        self.fast: Facts | None = None  # of the fast network, once asked for; None if it is chosen or missing
        self.trouble = ""  # why the network or the device cannot be used
        self._asked_for: tuple[str | None, str | None, bool] | None = None
        form.model.activated.connect(self.choose)
        for control in (form.device, form.quality):
            control.changed.connect(lambda *_: self.choose())

    def choose(self) -> None:
        """Ask for a file if one is wanted, then look at the network if it is another one."""
        if self._form.model.currentData() == FROM_FILE:
            self._form.model.ask_for_file()
        if self._chosen() != self._asked_for:
            self.examine()
        remember(model=self._form.model.currentData() or "", best=self._form.quality.value)

    def _chosen(self) -> tuple[str | None, str | None, bool]:
        """Network, device and quality."""
        return self._form.model.currentData(), self._form.device.value, self._form.quality.value

    def examine(self) -> None:
        """Look at what is chosen."""
        self._asked_for = model, device, best = self._chosen()
        self.stop()
        self.facts, self.fast, self.trouble = None, None, ""
        self.outdated.emit()
        self._work.start(partial(examine, model, device, self_ensemble=best))
        self.changed.emit()

    def compare_with_fast(self) -> None:
        """Look at the fast network, too, where there is one and another is chosen."""
        name, device, best = self._chosen()
        there = any(network.name == FAST and not network.own for network in list_networks())
        asked = self._work.running or self._fast_work.running or self.fast is not None
        if not asked and self.facts is not None and there and name != FAST:
            self._fast_work.start(partial(examine, FAST, device, self_ensemble=best))

    def stop(self) -> None:
        """Wait for nothing more."""
        self._work.stop()
        self._fast_work.stop()

    def _examined(self, facts: Facts) -> None:
        """Show what is known."""
        self.facts = facts
        offer_devices(self._form.device, facts.devices)
        self._form.device.tooltip = facts.chosen
        self._form.tile.tooltip = (
            f"Side of a tile in output pixels; {facts.halo} more are computed around it. The result does not depend\n"
            f"on it; smaller tiles need less memory and appear more often. Automatic is {facts.tile} in memory,\n"
            f"{LAZY_TILE} for results that are computed while you look around, {disk.TILE} on disk."
        )
        self._work.stop()  # there is no other step
        self.changed.emit()

    def _found_fast(self, facts: Facts) -> None:
        self.fast = facts
        self._fast_work.stop()
        self.changed.emit()

    def _ended(self, error: Exception | None) -> None:
        """Show why a network or device cannot be used."""
        if error is not None:
            self.trouble = sentence(error)
            LOG.error("model or device", exc_info=error)
            self.changed.emit()
