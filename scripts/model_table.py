"""Makes the documentation's table of models from the presets.

python scripts/model_table.py            prints it
python scripts/model_table.py --write    puts it between the markers in docs/reference/models.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from latentcli.models.presets import Preset, load_preset, preset_names
from latentcli.reports.tables import parameters, short_licence

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "models.md"
BEGIN = "<!-- models: written by scripts/model_table.py --write -->"
END = "<!-- end of models -->"

COLUMNS: dict[str, Callable[[Preset], str]] = {
    "model": lambda p: f"`{p.name}`",
    "what": lambda p: p.summary.replace("|", "\\|"),
    "parameters": lambda p: parameters(p.parameters),
    "latents": lambda p: p.spec.geometry,
    "multiples of": lambda p: str(p.size_divisor),
    "latent space": lambda p: p.space,
    "can": lambda p: ", ".join(v for v in ("encode", "decode") if getattr(p, f"can_{v}")),
    "licence": lambda p: short_licence(p.licence),
    "needs": lambda p: f"`latentcli[{p.extra}]`" if p.extra else "",
}


def table(presets: list[Preset]) -> str:
    """The Markdown table, a row per preset, with a line's end after each."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [[cell(preset) for cell in COLUMNS.values()] for preset in presets]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_table(text: str, new: str) -> str:
    """A document with what stands between the markers replaced; ValueError without them."""
    before, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the two lines {BEGIN} and {END} are missing")
    return f"{before}{begin}{new}{end}{after}"


def main() -> None:
    """Prints the table, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="rewrite the table of the page")
    new = table([load_preset(name) for name in preset_names()])
    if not parser.parse_args().write:
        print(new, end="")
        return
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), new), encoding="utf-8")


if __name__ == "__main__":
    main()
