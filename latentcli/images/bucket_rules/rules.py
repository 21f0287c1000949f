"""Names the bucket rules."""

from __future__ import annotations

from latentcli.images.bucket_rules.ai_toolkit import AI_TOOLKIT
from latentcli.images.bucket_rules.area import AREA, FILE
from latentcli.images.bucket_rules.kohya import KOHYA
from latentcli.images.bucket_rules.musubi import MUSUBI
from latentcli.images.bucket_rules.rule import BucketRule
from latentcli.images.bucket_rules.simpletuner import SIMPLETUNER, SIMPLETUNER_PIXEL

RULES: dict[str, BucketRule] = {
    "area": AREA,
    "kohya": KOHYA,
    "musubi": MUSUBI,
    "ai-toolkit": AI_TOOLKIT,
    "simpletuner": SIMPLETUNER,
    "simpletuner-pixel": SIMPLETUNER_PIXEL,
    "file": FILE,
}
"""`file` is the rule of a table that was read; all others make their own sizes."""
