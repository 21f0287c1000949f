"""What a reader does with the results viewer: open a picture, look at the panes."""

from __future__ import annotations

import re
from typing import Any


def shown_keys(page: Any):
    """Names under the thumbnails, in their order."""
    return page.locator("#grid .key").all_inner_texts()


def open_image(page: Any, index: int):
    """Opens a picture from its thumbnail."""
    page.locator(f"#grid a[href='#image-{index}']").click()
    page.locator("#compare[open]").wait_for()
    loaded(page)


def loaded(page: Any):
    """Waits until every pane has its picture."""
    page.wait_for_timeout(50)
    page.evaluate(
        "Promise.all([...document.querySelectorAll('#stages img')].map((i) => i.decode()))"
    )


def transforms(page: Any):
    """Where each pane looks."""
    return page.eval_on_selector_all("#stages img", "all => all.map((i) => i.style.transform)")


def scale_of(page: Any):
    """The scale that all panes share."""
    (found,) = {re.search(r"scale\((.*)\)", text)[1] for text in transforms(page)}
    return float(found)
