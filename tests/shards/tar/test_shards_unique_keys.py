from __future__ import annotations

import random

from latentcli.shards.tar.unique_keys import UniqueKeys


def test_unique_keys_grow_in_little_memory():
    keys = UniqueKeys()
    chance = random.Random(1)
    given_keys = [str(chance.randrange(20_000)) for _ in range(30_000)]
    seen: set[str] = set()
    for key in given_keys:
        name, new = keys.claim(key)
        assert new == (key not in seen)
        assert name == key if new else name.startswith(f"{key}~")
        seen.add(key)
    assert keys.last == name
