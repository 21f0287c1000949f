"""Finds the class of each sample, as the number that a trainer wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.fields import LABEL

FIELDS = (LABEL, "label")
"""Fields that hold a class, where nothing else is said."""
FOLDER = "folder"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Label:
    """How a sample's class is found."""

    fields: tuple[str, ...] = ()
    """Fields that say it; the first that a sample has is taken."""
    folders: Mapping[str, int] | None = None
    """The number of each first folder of a name, where folders are classes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes by their numbers, where folders are classes."""
        return tuple(self.folders or ())

    @property
    def is_there(self) -> bool:
        """Whether there are classes at all."""
        return bool(self.fields or self.folders)

    def __call__(self, key: str, fields: Mapping[str, Any]) -> int | None:
        """The class of a sample; None where it has none.

        StoreError where a field holds something that is no class.
        """
        if self.folders is not None:
            return self.folders.get(top_folder(key))
        name = next((name for name in self.fields if name in fields), None)
        if name is None:
            return None
        value = fields[name]
        if type(value) is not int or value < 0:
            raise StoreError(
                f"The field {name!r} of {key!r} is {value!r:.60}, and a class is a whole number"
                " from 0 on. --labels names another field, or folder."
            )
        return value


def label_of(
    wanted: str,
    keys: Iterable[str],
    others: Iterable[str],
    fields: Iterable[Mapping[str, Any]],
    needed: bool,
) -> Label:
    """How classes are found, as --labels says; `fields` are read until a sample has a class.

    `keys` are of samples, `others` of inputs that have no latent. Folders of both get their numbers
    in the order of their names, as torchvision's ImageFolder has it: those of the same data set are
    the same whichever of its pictures could be encoded. UsageError where classes are needed or
    named and there is nothing to find them by.
    """
    if wanted not in (AUTO, FOLDER):
        if not any(wanted in one for one in fields):
            raise UsageError(
                f"--labels is {wanted!r}, and no sample of the store has a field of that name. It"
                " is auto, folder, or the name of a field."
            )
        return Label((wanted,))
    if wanted == AUTO and any(name in one for one in fields for name in FIELDS):
        return Label(FIELDS)
    folders = {top_folder(key) for key in keys}
    if folders and "" not in folders:
        folders |= {top_folder(key) for key in others} - {""}
        return Label(folders={name: number for number, name in enumerate(sorted(folders))})
    if needed or wanted == FOLDER:
        raise UsageError(
            "This format needs a class for each sample. There are no fields cls or label, and not"
            " every picture is in a folder that could be one. --labels NAME names another field."
        )
    return Label()


def top_folder(key: str) -> str:
    """The first folder of a key; "" where it is in none."""
    first, slash, _ = key.partition("/")
    return first if slash else ""
