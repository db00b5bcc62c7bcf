"""Which loop devices show which images of one pool, and which of them are held open."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from contextlib import suppress

from provisioner import loops
from provisioner.linux import loop
from provisioner.loops import Image


class Devices:
    """Devices by image; safe to use from any thread.

    Those of raw block volumes are held open. Who has one open may detach it (LOOP_CLR_FD asks for no capability), and
    its number is then given to the next image, which he could read and write. While we hold it, it only goes with our
    own last close; so it also stays known as the volume's, whatever a tenant made it show (LOOP_CHANGE_FD).
    """

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._known: defaultdict[Image, set[int]] = defaultdict(set)  # attached by us, or before us
        self._held: dict[int, tuple[Image, int]] = {}  # by number; with the descriptor

    def find(self) -> set[str]:
        """Look at all devices of the machine, for those of images; gives the folders of those that cannot be asked."""
        unclear: set[str] = set()
        found = list(loops.ours(unclear.add))
        with self._guard:
            for number, image in found:
                self._known[image].add(number)
        return unclear

    def note(self, device_fd: int) -> int:
        """Remember a device that was just attached; gives its number."""
        status = loop.get_status(device_fd)
        with self._guard:
            self._known[status.image].add(status.number)
        return status.number

    def of(self, image: Image) -> list[int]:
        """List the devices of an image."""
        with self._guard:
            known = self._known.get(image, set())
            for number in [number for number in known if not self.is_of(number, image)]:
                known.discard(number)
            if not known:
                self._known.pop(image, None)
            return sorted(known)

    def is_of(self, number: int, image: Image) -> bool:
        """Tell whether a device is of an image: it shows it, or was held since it did."""
        with self._guard:
            held = self._held.get(number)
        return held[0] == image if held else loops.image_behind(number) == image

    def hold(self, number: int, image: Image) -> None:
        """Keep a device of an image open."""
        with self._guard:
            if number not in self._held:
                self._held[number] = (image, loops.open_device(number, readonly=True))

    def is_held(self, number: int) -> bool:
        """Tell whether a device is held open."""
        return number in self._held

    def let_go(self, number: int, image: Image) -> None:
        """Detach a device of an image; one that is in use goes when it is not any more."""
        with self._guard:
            _, held_fd = self._held.pop(number, (image, -1))
        try:
            loops.detach(number, None if held_fd >= 0 else image)
        finally:
            if held_fd >= 0:
                os.close(held_fd)

    def close(self) -> None:
        """Hold nothing any more."""
        with self._guard:
            held = [fd for _, fd in self._held.values()]
            self._held.clear()
        for fd in held:
            with suppress(OSError):
                os.close(fd)
