"""Reading weight files and fitting them: nothing wrong passes, and every misfit is named."""

from __future__ import annotations

import hashlib
import pickle
import re
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.models.base import Autoencoder
from latentcli.models.registry import family
from latentcli.models.weights import (
    check_sha256,
    file_sha256,
    load_into,
    random_state,
    read_state_dict,
)

FCDM = family("fcdm")
SMALL = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def build() -> Autoencoder:
    return FCDM.build(FCDM.tiny, None)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return random_state(build, seed=1)


def fill(
    state: dict[str, Tensor], dtype: torch.dtype = torch.float32, source: str = "a.safetensors"
) -> Autoencoder:
    with torch.device("meta"):
        model = build()
    return load_into(model, state, family=FCDM, dtype=dtype, device="cpu", source=source)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype
        for name in wanted
    )


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(SMALL, tmp_path / "a.safetensors")
    assert same(read_state_dict(tmp_path / "a.safetensors"), SMALL)


@settings(max_examples=40, deadline=None)
@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_truncated_safetensors_file_is_never_read(
    tmp_path_factory: pytest.TempPathFactory, keep: float
) -> None:
    whole = save(SMALL)
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is not a complete safetensors file"):
        read_state_dict(path)


def test_other_content_under_a_weights_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(WeightsError, match=r"not a complete safetensors file \(1,600 bytes\)"):
        read_state_dict(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        read_state_dict(path)
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_state_dict(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pytorch_file_of_tensors_is_read(tmp_path: Path, suffix: str, nested: bool) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save({"state_dict": SMALL, "epoch": 3} if nested else SMALL, path)
    assert same(read_state_dict(path), SMALL)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_torchs_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in SMALL.items()}
    torch.save({"state_dict": wrapped}, tmp_path / "a.ckpt")
    assert same(read_state_dict(tmp_path / "a.ckpt"), SMALL)
    save_file(wrapped | {"c": torch.ones(1)}, tmp_path / "a.safetensors")
    assert set(read_state_dict(tmp_path / "a.safetensors")) == {*wrapped, "c"}, "not of all names"


def test_a_counter_that_was_cast_with_the_weights_is_whole_again() -> None:
    effvit = family("effvit")
    state = random_state(lambda: effvit.build(effvit.tiny, None), seed=1)
    halved = {name: tensor.half() for name, tensor in state.items()}
    with torch.device("meta"):
        model = effvit.build(effvit.tiny, None)
    load_into(model, halved, family=effvit, dtype=torch.float32, device="cpu", source="a.pth")
    counters = [t for name, t in model.state_dict().items() if name.endswith("_tracked")]
    assert len(counters) == 2 and {t.dtype for t in counters} == {torch.int64}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_pytorch_file_is_an_error_in_words_or_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of damage that only values have, no reader can know: they are read as they are there."""
    path = tmp_path_factory.mktemp("torn") / "torn.pth"
    torch.save(SMALL, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
    whole = path.read_bytes()
    raw = {name: bytes_of(tensor) for name, tensor in SMALL.items()}
    values = {name: range(at := whole.index(b), at + len(b)) for name, b in raw.items()}
    anywhere = st.integers(0, len(whole) - 1)
    places = data.draw(st.lists(anywhere | st.sampled_from([*chain(*values.values())]), max_size=4))
    content = bytearray(whole)
    for place in places:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    if all(content[i] == whole[i] or any(i in of for of in values.values()) for i in places):
        found = read_state_dict(path)
        assert found.keys() == SMALL.keys()
        for name, tensor in found.items():
            assert (tensor.shape, tensor.dtype) == (SMALL[name].shape, SMALL[name].dtype)
            assert bytes_of(tensor) == content[values[name].start : values[name].stop]
        return
    try:
        found = read_state_dict(path)
    except WeightsError as error:
        assert str(path) in str(error)
    else:
        assert found and all(isinstance(tensor, Tensor) for tensor in found.values())


def bytes_of(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())


def test_damage_that_torchs_older_reader_asserts_against(tmp_path: Path) -> None:
    path = tmp_path / "torn.pth"
    torch.save(SMALL, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    keys = re.search(rb"\d{9,}", whole)
    assert keys is not None
    path.write_bytes(whole[: keys.start()] + b"x" + whole[keys.start() + 1 :])
    with pytest.raises(WeightsError, match=r"torn\.pth is not a complete PyTorch file"):
        read_state_dict(path)


class Malice:
    """Unpickling this makes the file it names."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, form: str) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "was-run"
    content = {"weight": torch.ones(2), "evil": Malice(target)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match="would run code"):
        read_state_dict(path)
    assert not target.exists()
    if form == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert target.exists(), "the trap itself must work"


def test_a_pytorch_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(2), "epoch": 3}, path)
    with pytest.raises(WeightsError, match="these entries are not tensors: epoch"):
        read_state_dict(path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(WeightsError, match="holds list; it must be a table of tensors"):
        read_state_dict(path)
    torch.save(SMALL, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"a\.pth"):
        read_state_dict(path)


def test_a_fitting_state_fills_the_model(state: dict[str, Tensor]) -> None:
    model = fill(state)
    assert same(dict(model.state_dict()), state)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_bfloat16_leaves_islands_and_buffers_in_float32(state: dict[str, Tensor]) -> None:
    model = fill(state, torch.bfloat16)
    buffers = {name for name, _ in model.named_buffers()}
    full = {name for name, t in model.state_dict().items() if t.dtype == torch.float32}
    assert model.dtype == torch.bfloat16
    assert buffers <= full
    assert "decoder.out_proj.weight" in full
    assert full == buffers | {name for name in state if FCDM.fp32_islands(name)}
    assert torch.equal(
        model.state_dict()["decoder.out_proj.weight"], state["decoder.out_proj.weight"]
    )


def test_weights_stored_in_half_precision_come_back_as_asked(state: dict[str, Tensor]) -> None:
    halved = {name: tensor.half() for name, tensor in state.items()}
    model = fill(halved)
    assert all(t.dtype == torch.float32 for t in model.state_dict().values())


def test_every_kind_of_misfit_is_listed(state: dict[str, Tensor]) -> None:
    state["ema.step"] = torch.zeros(1)
    del state["decoder.fuse_skip.bias"]
    state["decoder.fuse_in.bias"] = torch.zeros(7)
    state["latent_norm_running_var"] = torch.ones(8, dtype=torch.int64)
    with pytest.raises(WeightsError) as caught:
        fill(state, source="folder/model.safetensors")
    message = str(caught.value)
    assert "folder/model.safetensors" in message
    assert f"which has {len(state)} tensors; the file has {len(state)}" in message
    assert "1 missing: decoder.fuse_skip.bias\n" in message
    assert "1 extra: ema.step\n" in message
    assert "2 of another shape or kind: " in message
    assert "decoder.fuse_in.bias (expected [32], found [7])" in message
    assert "latent_norm_running_var (expected [8], found whole numbers [8])" in message


def test_long_lists_of_misfits_are_cut_and_counted(state: dict[str, Tensor]) -> None:
    kept = {name: t for name, t in state.items() if not name.startswith("decoder.adaln")}
    for n in range(11):
        kept[f"extra.{n}"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        fill(kept)
    dropped = len(state) - len(kept) + 11
    assert f"{dropped} missing: " in str(caught.value)
    assert "11 extra: extra.0, extra.1," in str(caught.value)
    assert "extra.7 and 3 more" in str(caught.value)
    assert "extra.8" not in str(caught.value)


def test_random_state_is_seeded_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = random_state(build, seed=1)
    assert torch.equal(torch.rand(3), wanted)
    assert same(random_state(build, seed=1), first)
    assert not same(random_state(build, seed=2), first)
    assert torch.equal(first["latent_norm_running_mean"], torch.zeros(8))
    assert torch.equal(first["latent_norm_running_var"], torch.ones(8))


def test_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert file_sha256(path) == hashlib.sha256(content).hexdigest()
    check_sha256(path, hashlib.sha256(b"three").hexdigest(), "toy")
    with pytest.raises(WeightsError, match=r"not the file that preset toy names"):
        check_sha256(path, hashlib.sha256(b"one").hexdigest(), "toy")
