"""The benchmark of decoding, on a machine without a GPU: the same work with the decoder of the CPU in its place."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import device_decode
from support.handmade import make
from tensorbank_gpu import CpuStreams, StreamBatch

CPU = torch.device("cpu")


def test_both_ways_are_measured_and_compared(tmp_path):
    report = device_decode.measure(make(tmp_path, 8).plan, "balanced", CPU, CpuStreams())
    assert report.n_streams > 0
    assert report.device_ms is not None
    assert min(report.parse_us, report.verify_us, report.host_ms, report.device_ms) > 0
    lacking = 3 * (4 + 8) + 1  # radar of three samples, classes of one
    assert report.n_blocks == 8 * (4 + 3 + 4 + 8 + 1 + 1) - lacking
    assert re.fullmatch(r"balanced: .* blocks of .* streams, .* on the device \d+\.\d ms", report.sentence())


class Wrong(CpuStreams):
    def decode(self, stored: torch.Tensor, batch: StreamBatch, scratch: torch.Tensor) -> None:
        super().decode(stored, batch, scratch)
        scratch[np.asarray(batch.zstd.dest_offsets[:1])] ^= 1


def test_a_device_that_decodes_to_something_else_has_no_figures(tmp_path):
    with pytest.raises(RuntimeError, match="not what the host decodes"):
        device_decode.measure(make(tmp_path, 8, profile="small").plan, "small", CPU, Wrong())


def test_without_a_gpu_the_work_of_the_cpu_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device_decode.run(2, ["hot"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("no GPU")
    assert second.startswith("hot: ")
    assert second.endswith("on the device not measured")
