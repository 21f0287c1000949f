"""Does to a dataset what its user may do to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.life_folder import FORMATS, SUFFIXES, TEXTS, UNUSUAL, Life, is_picture

FEWEST = 4
"""Pictures that are never deleted."""


def add(life: Life) -> str:
    path = life.folder() / f"p{life.number()}{life.chance.choice(SUFFIXES)}"
    life.draw(path)
    if life.chance.random() < 0.6:
        write_text(life, path)
    return f"add {life.name(path)}"


def write_text(life: Life, path: Path) -> str:
    suffix = life.chance.choice([".txt", *TEXTS])
    text = f"caption {life.number()}"
    if suffix == ".json":
        text = json.dumps({"caption": text, "number": life.made})
    target = path.with_suffix(suffix)
    text = life.chance.choice([text, text, text, "", "\udcff"])
    target.write_text(text, errors="surrogateescape")
    return f"write {life.name(target)}"


def edit(life: Life) -> str:
    path = life.picked()
    life.draw(path)
    return f"edit {life.name(path)}"


def edit_text(life: Life) -> str:
    return write_text(life, life.picked())


def drop_text(life: Life) -> str:
    if not (texts := life.texts()):
        return "drop no text"
    path = life.chance.choice(texts)
    path.unlink()
    return f"drop {life.name(path)}"


def metadata(life: Life) -> str:
    folder = life.folder()
    below = [path for path in life.pictures() if path.is_relative_to(folder)]
    said = [path for path in below if life.chance.random() < 0.7]
    number = life.number()
    rows = [
        {"file_name": str(path.relative_to(folder)), "text": f"meta {number} {i}", "order": i}
        for i, path in enumerate(said)
    ]
    if life.chance.random() < 0.7:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(text)
    else:
        lines = ["file_name,text,order", *(",".join(map(str, row.values())) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return f"metadata of {len(rows)} in {life.name(folder)}"


def rename(life: Life) -> str:
    """Under another name, perhaps in another folder; mostly its texts go along."""
    path = life.picked()
    suffix = life.chance.choice(list(FORMATS)) if life.chance.random() < 0.1 else path.suffix
    target = life.folder() / f"r{life.number()}{suffix}"
    texts = [path.with_suffix(suffix) for suffix in TEXTS]
    path.rename(target)
    if life.chance.random() < 0.7:
        for text in texts:
            if text.is_file():
                text.rename(target.with_suffix(text.suffix))
    return f"rename {life.name(path)} to {life.name(target)}"


def overwrite(life: Life) -> str:
    """Gives a picture the name of another one, which is no more."""
    one, two = life.picked(), life.picked()
    if one == two or one.suffix != two.suffix or len(life.pictures()) <= 2 * FEWEST:
        return "overwrite nothing"
    one.replace(two)
    return f"rename {life.name(one)} to {life.name(two)}, which was there"


def swap(life: Life) -> str:
    one, two = life.picked(), life.picked()
    if one == two or one.suffix != two.suffix:
        return "swap nothing"
    other = one.with_name("swapping")
    one.rename(other)
    two.rename(one)
    other.rename(two)
    return f"swap {life.name(one)} and {life.name(two)}"


def rename_folder(life: Life) -> str:
    if not (folders := life.folders()):
        return "rename no folder"
    path = life.chance.choice(folders)
    target = path.with_name(f"g{life.number()}")
    path.rename(target)
    return f"rename folder {life.name(path)} to {life.name(target)}"


def delete(life: Life) -> str:
    path = life.picked()
    if len([other for other in life.pictures() if other.exists()]) <= FEWEST:
        return "delete nothing"
    path.unlink()
    return f"delete {life.name(path)}"


def delete_folder(life: Life) -> str:
    pictures = [path for path in life.pictures() if path.exists()]
    free = [
        folder
        for folder in life.folders()
        if sum(not path.resolve().is_relative_to(folder.resolve()) for path in pictures) >= FEWEST
    ]
    if not free:
        return "delete no folder"
    path = life.chance.choice(free)
    shutil.rmtree(path)
    return f"delete folder {life.name(path)}"


def duplicate(life: Life) -> str:
    path = life.picked()
    target = life.folder() / f"d{life.number()}{path.suffix}"
    shutil.copy(path, target)
    return f"copy {life.name(path)} to {life.name(target)}"


def link(life: Life) -> str:
    """A second name of a picture, which leads nowhere once the picture has another name."""
    path = life.picked()
    target = life.folder() / f"l{life.number()}{path.suffix}"
    target.symlink_to(os.path.relpath(path, target.parent))
    return f"link {life.name(target)} to {life.name(path)}"


def same_stem(life: Life) -> str:
    target = life.picked().with_suffix(life.chance.choice(SUFFIXES))
    life.draw(target)
    return f"draw {life.name(target)}"


def touch(life: Life) -> str:
    path = life.picked()
    time = life.number()
    os.utime(path, ns=(time, time))
    return f"touch {life.name(path)}"


def break_one(life: Life) -> str:
    """A picture by its name that cannot be read."""
    named = [path for path in life.pictures() if path.exists() and path.suffix not in UNUSUAL]
    if len(named) <= FEWEST:
        return "break nothing"
    path = life.chance.choice(named)
    path.write_bytes(f"no picture {life.number()}".encode())
    return f"break {life.name(path)}"


def wrong_suffix(life: Life) -> str:
    """A picture of one format under the name of another."""
    path = life.folder() / f"w{life.number()}.png"
    life.draw(path)
    target = path.with_suffix(life.chance.choice(list(FORMATS)))
    path.rename(target)
    return f"add {life.name(target)}, a PNG file"


def other_file(life: Life) -> str:
    """Something that is no input."""
    number = life.number()
    folder = life.folder()
    name = life.chance.choice(list(OTHERS)).format(number)
    OTHERS[name.replace(str(number), "{}")](folder / name)
    return f"add {life.name(folder / name)}"


def write_words(path: Path) -> None:
    path.write_text("words")


def write_svg(path: Path) -> None:
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')


def lead_nowhere(path: Path) -> None:
    path.symlink_to("nowhere.png")


OTHERS: dict[str, Callable[[Path], object]] = {
    "n{}.md": write_words,
    "n{}.txt": write_words,
    "n{}": write_words,
    "n{}.svg": write_svg,
    "n{}.png": lead_nowhere,
    ".n{}.png": write_words,
    "n{}.tar.xz": write_words,
    "n{}.d": Path.mkdir,
    "n{}.pipe": os.mkfifo,
}
"""Files that are no inputs, by name."""


def adopt(life: Life) -> str:
    """A decoded picture that its user takes for the dataset."""
    if not (decoded := life.decoded()):
        return "adopt nothing"
    path = life.chance.choice(decoded)
    target = life.folder() / f"a{life.number()}{path.suffix}"
    shutil.copy(path, target)
    taken = is_picture(target) and target in life.pictures()
    return f"copy {life.name(path)} to {life.name(target)}, {'an' if taken else 'no'} input"


def move(life: Life) -> str:
    life.moves += 1
    target = life.home / f"data{life.moves}"
    if life.chance.random() < 0.5:
        life.data.rename(target)
        how = "move"
    else:
        keeps = life.chance.random() < 0.5
        copy = shutil.copy2 if keeps else shutil.copy
        for pipe in [path for path in life.paths() if path.is_fifo()]:
            pipe.unlink()
        shutil.copytree(life.data, target, symlinks=True, copy_function=copy)
        shutil.rmtree(life.data)
        how = f"copy, with {'the same' if keeps else 'other'} times,"
        life.copies += not keeps
    life.data = target
    return f"{how} to {target.name}"


ACTIONS: dict[Callable[[Life], str], int] = {
    add: 6,
    edit: 4,
    edit_text: 4,
    drop_text: 2,
    metadata: 2,
    rename: 4,
    swap: 2,
    overwrite: 2,
    rename_folder: 1,
    delete: 4,
    delete_folder: 1,
    duplicate: 2,
    link: 1,
    same_stem: 2,
    touch: 2,
    break_one: 1,
    wrong_suffix: 1,
    other_file: 2,
    adopt: 1,
    move: 1,
}
"""What users do, and how often."""
